"""Checkpoint to model directory: `export_model`."""

from zhiyin_offline.export.exporter import BILINGUAL_PACKAGE, export_model
from zhiyin_offline.export.locate import CheckpointError
from zhiyin_offline.export.staging import ExportError

__all__ = ["BILINGUAL_PACKAGE", "CheckpointError", "ExportError", "export_model"]

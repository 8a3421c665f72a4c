"""Checkpoint to model directory: `export_model`."""

from zhiyin_offline.export.exporter import ExportError, export_model
from zhiyin_offline.export.locate import CheckpointError

__all__ = ["CheckpointError", "ExportError", "export_model"]

"""Checkpoint to model directory: `export_model`."""

from zhiyin_offline.export.checkpoint import CheckpointError
from zhiyin_offline.export.export_model import ExportError, export_model

__all__ = ["CheckpointError", "ExportError", "export_model"]

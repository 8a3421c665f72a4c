"""A transformer over the items of a user, whose items are an id part plus a text part.

SASRec (Kang and McAuley, 2018) with layer norm before each block and one table for input and output. The text part is
a linear map and no network, so that a store of vectors can apply it to items that come later.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhiyin_offline.training.sequence.settings import SequenceSettings

_INITIAL_SCALE = 0.02


class ItemTable(nn.Module):
    """Vectors of the items that occur in training.

    Args:
        text: Their text vectors as they are compared (centred, length 1; a zero row: no text), shape (items, text
            dimensions); no columns: ids only.
        dimensions: Of the item vectors.
    """

    text: Tensor
    textless: Tensor

    def __init__(self, text: Tensor, dimensions: int) -> None:
        super().__init__()
        self.ids = nn.Parameter(torch.randn(len(text), dimensions) * _INITIAL_SCALE)
        self.projection = nn.Parameter(torch.randn(text.shape[1], dimensions) * _INITIAL_SCALE)
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("textless", ~text.any(1, keepdim=True), persistent=False)

    def forward(
        self, rows: Tensor | None = None, id_dropout: float = 0.0, factors: torch.dtype = torch.float32
    ) -> Tensor:
        """Item vectors, shape (rows, dimensions).

        Args:
            rows: Which items; None: all.
            id_dropout: Share of the items with a text that have to do with it.
            factors: What the product of texts and projection reads; it sums in float32.
        """
        every = slice(None) if rows is None else rows
        ids, text = self.ids[every], self.text[every]
        if text.shape[1] == 0:
            return ids
        if id_dropout > 0:
            kept = (torch.rand(len(ids), 1, device=ids.device) >= id_dropout) | self.textless[every]
            ids = ids * kept
        return ids + (text.to(factors) @ self.projection.to(factors)).float()


class Block(nn.Module):
    """Attention to the items before, then a feed-forward network, each added to what came in."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        d = settings.dimensions
        self.attention_norm, self.network_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.queries_keys_values, self.attended = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.widen, self.narrow = nn.Linear(d, settings.feed_forward), nn.Linear(settings.feed_forward, d)
        self.dropout = settings.dropout

    def forward(self, states: Tensor) -> Tensor:
        """Shape (batch, length, dimensions), in and out."""
        queries, keys, values = self.queries_keys_values(self.attention_norm(states)).chunk(3, dim=-1)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True, dropout_p=dropout)
        states = states + self._drop(self.attended(mixed))
        return states + self._drop(self.narrow(self._drop(functional.gelu(self.widen(self.network_norm(states))))))

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training)


class UserTransformer(nn.Module):
    """From the vectors of a user's items to the vector that the next item's is expected to agree with."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        self.scale = settings.dimensions**0.5
        self.positions = nn.Parameter(torch.randn(settings.max_length, settings.dimensions) * _INITIAL_SCALE)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dimensions)
        self.dropout = settings.dropout

    def forward(self, items: Tensor) -> Tensor:
        """The user after each item.

        Args:
            items: Item vectors, oldest first, padding behind the latest, shape (batch, length, dimensions).
        """
        states = items * self.scale + self.positions[: items.shape[1]]
        states = functional.dropout(states, self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        result: Tensor = self.norm(states)
        return result


class SequenceModel(nn.Module):
    """Both sides. The score of an item for a user is the inner product of their vectors."""

    def __init__(self, text: Tensor, settings: SequenceSettings) -> None:
        super().__init__()
        self.items = ItemTable(text, settings.dimensions)
        self.user = UserTransformer(settings)

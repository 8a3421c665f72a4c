"""The weights of the encoder, in the order in which the graph needs them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.bilingual.packed_model import PackedModel, Q4Matrix

# BERT's; the file's own field holds the same to the digits of a float32.
LAYER_NORM_EPSILON = 1e-12
# Channels of the token vectors between layers that are louder than all others, whatever the text, and by which power
# of two. With one 8-bit scale for all channels of a token, the others would have few steps left.
_LOUD_CHANNELS = {15: 4, 35: 4, 87: 2, 146: 2, 297: 2, 321: 2, 351: 2}


@dataclass(frozen=True)
class Linear:
    """y = x · weightᵀ + bias.

    Attributes:
        weight: [outputs, inputs].
        bias: [outputs] float32.
        loudness: [inputs] float32 powers of two: how much louder than most an input is; None where all are alike.
    """

    weight: Q4Matrix
    bias: NDArray[np.float32]
    loudness: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Norm:
    """Scale and shift of a layer normalisation, [hidden] float32 each."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One transformer layer, normalised after each half.

    Attributes:
        query_key_value: The three projections as one, outputs in this order.
        attention_output: After the heads.
        attention_norm: After the residual sum.
        expand: Into the feed-forward width.
        contract: Back from it.
        output_norm: After the residual sum.
    """

    query_key_value: Linear
    attention_output: Linear
    attention_norm: Norm
    expand: Linear
    contract: Linear
    output_norm: Norm


@dataclass(frozen=True)
class BertWeights:
    """An encoder.

    Attributes:
        heads: Of the attention.
        words: [pieces, hidden].
        positions: [positions, hidden] float32, token type included.
        embedding_norm: After their sum.
        layers: First to last.
    """

    heads: int
    words: Q4Matrix
    positions: NDArray[np.float32]
    embedding_norm: Norm
    layers: tuple[Layer, ...]


def read_weights(model: PackedModel, keep: NDArray[np.int64]) -> BertWeights:
    """Takes the weights out of the file.

    Args:
        model: The file.
        keep: Ids of the pieces whose vectors are wanted.

    Raises:
        PackedModelError: A tensor is missing or has another shape.
    """
    hidden, wide = model.hidden, model.feed_forward
    loudness = np.ones(hidden, np.float32)
    loudness[list(_LOUD_CHANNELS)] = list(_LOUD_CHANNELS.values())

    def linear(name: str, outputs: int, inputs: int) -> Linear:
        return Linear(model.matrix(f"{name}.w", outputs, inputs), model.array(f"{name}.b", outputs))

    def norm(name: str) -> Norm:
        return Norm(model.array(f"{name}.w", hidden), model.array(f"{name}.b", hidden))

    def layer(at: str) -> Layer:
        return Layer(
            query_key_value=_stacked([linear(f"{at}.{part}", hidden, hidden) for part in "qkv"], loudness),
            attention_output=linear(f"{at}.ao", hidden, hidden),
            attention_norm=norm(f"{at}.aln"),
            expand=replace(linear(f"{at}.fi", wide, hidden), loudness=loudness),
            contract=linear(f"{at}.fo", hidden, wide),
            output_norm=norm(f"{at}.oln"),
        )

    return BertWeights(
        heads=model.heads,
        words=model.word_embeddings(keep),
        positions=model.position_embeddings(),
        embedding_norm=norm("emb.ln"),
        layers=tuple(layer(f"l{i}") for i in range(model.layers)),
    )


def _stacked(parts: list[Linear], loudness: NDArray[np.float32]) -> Linear:
    weight = Q4Matrix(
        np.concatenate([part.weight.nibbles for part in parts]), np.concatenate([part.weight.scales for part in parts])
    )
    return Linear(weight, np.concatenate([part.bias for part in parts]), loudness)

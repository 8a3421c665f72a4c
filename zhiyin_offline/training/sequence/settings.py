"""What may be chosen about the sequence model. The defaults are those the figures in docs were made with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SequenceSettings:
    """The shape of the model and how it is trained.

    Attributes:
        dimensions: Of item and user vectors.
        layers: Transformer blocks.
        feed_forward: Width inside a block.
        dropout: Share of activations that a training step leaves out.
        max_length: Items of a history that are read, the latest.
        id_dropout: Share of items whose id part a training step leaves out, so that their text has to do alone: what a
            new item will have.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        warmup_steps: Over which the learning rate rises.
        averaging: Decay of the moving average of the weights, which is what is evaluated and kept; 0: no average.
        batch_positions: Positions of a batch, padding included.
        user_balance: From 0, every event counts the same, to 1, every user counts the same.
        full_softmax_items: Trained items up to which the loss is the full softmax; beyond, it is sampled.
        sampled_items: Negatives of a step when it is sampled.
        reduced_precision: Let the largest matrix products read bfloat16 where the hardware can; False: float32, as on
            any other machine.
        evaluate_every: Steps between two looks at the validation users; two passes over the data where these are less.
        patience: Steps without a new best after which training ends; one pass over the data where that is more.
        max_steps: Training ends here at the latest.
        validation_users: Looked at, at most; a sample where there are more.
        refit: Train once more, on everything, for as long as was best.
    """

    dimensions: int = 128
    layers: int = 2
    feed_forward: int = 256
    dropout: float = 0.4
    max_length: int = 50
    id_dropout: float = 0.1
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup_steps: int = 50
    averaging: float = 0.98
    batch_positions: int = 1536
    user_balance: float = 0.5
    full_softmax_items: int = 50_000
    sampled_items: int = 8_192
    reduced_precision: bool = True
    evaluate_every: int = 100
    patience: int = 400
    max_steps: int = 5_000
    validation_users: int = 5_000
    refit: bool = True

"""The steps of one training: a pure function of data, settings and seed, wherever it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zhiyin_offline.training.sequence.batches import Batch, TrainingSequences
from zhiyin_offline.training.sequence.losses import NegativeSampler, fast_factors, full_softmax, sampled_softmax
from zhiyin_offline.training.sequence.model import SequenceModel
from zhiyin_offline.training.sequence.settings import SequenceSettings

_GRADIENT_NORM = 5.0


class Optimisation:
    """A model in training.

    Args:
        sequences: Over the rows of `text`.
        text: Text vectors of the trained items, shape (items, text dimensions), on the device to train on.
        counts: How often each item occurs, shape (items,).
        settings: Shape and schedule.
        seed: Decides the first weights, the order of batches and what is dropped.
    """

    def __init__(
        self, sequences: TrainingSequences, text: Tensor, counts: Tensor, settings: SequenceSettings, seed: int
    ) -> None:
        self._sequences, self._settings, self._seed = sequences, settings, seed
        torch.manual_seed(seed)
        self.model = SequenceModel(text.cpu(), settings).to(text.device)
        self._averaged = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98)
        )
        self._sampler = None if len(text) <= settings.full_softmax_items else NegativeSampler.of(counts.to(text.device))
        self._factors = fast_factors(text.device) if settings.reduced_precision else torch.float32
        self._batches: Iterator[Batch] | None = None
        self.step_count = self._epoch = self._epoch_start = 0

    def step(self) -> float:
        """One step.

        Returns:
            The loss on its batch.
        """
        batch = self._next_batch()
        # Seeded step by step: a training that goes on needs no memory of what was drawn before.
        torch.manual_seed(self._seed * 1_000_003 + self.step_count + 1)
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * min(1.0, (self.step_count + 1) / self._settings.warmup_steps)
        loss = self._loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_NORM)
        self._optimizer.step()
        self.step_count += 1
        self._average()
        return float(loss.detach())

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights, by parameter name; copies."""
        return {name: value.clone() for name, value in self._averaged.items()}

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.step_count,
            "epoch": self._epoch,
            "epoch_start": self._epoch_start,
            "parameters": {name: value.detach() for name, value in self.model.named_parameters()},
            "averaged": self._averaged,
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state()`."""
        self.step_count, self._epoch, self._epoch_start = state["step"], state["epoch"], state["epoch_start"]
        with torch.no_grad():
            for name, value in self.model.named_parameters():
                value.copy_(state["parameters"][name])
                self._averaged[name].copy_(state["averaged"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._batches = iter(self._epoch_batches()[self.step_count - self._epoch_start :])

    def _next_batch(self) -> Batch:
        batch = next(self._batches, None) if self._batches is not None else None
        if batch is not None:
            return batch
        self._epoch += self._batches is not None
        self._epoch_start = self.step_count
        self._batches = iter(self._epoch_batches())
        return next(self._batches)

    def _epoch_batches(self) -> list[Batch]:
        return self._sequences.epoch(np.random.default_rng([self._seed, self._epoch]))

    def _loss(self, batch: Batch) -> Tensor:
        device = self.model.items.ids.device
        inputs, all_targets = torch.from_numpy(batch.inputs).to(device), torch.from_numpy(batch.targets).to(device)
        valid = all_targets >= 0
        targets, weights = all_targets[valid], torch.from_numpy(batch.weights).to(device)[valid]
        id_dropout = self._settings.id_dropout
        if self._sampler is None:
            table = self.model.items(id_dropout=id_dropout, factors=self._factors)
            return full_softmax(self.model.user(table[inputs])[valid], table, targets, weights, self._factors)
        # Only the items of this step get a vector; each one the same wherever it occurs.
        negatives = self._sampler.draw(self._settings.sampled_items)
        rows, places = torch.unique(torch.cat([inputs.flatten(), targets, negatives]), return_inverse=True)
        table = self.model.items(rows, id_dropout, self._factors)
        at_inputs, at_targets, at_negatives = places.split([inputs.numel(), len(targets), len(negatives)])
        users = self.model.user(table[at_inputs.view_as(inputs)])[valid]
        expected = (self._sampler.probability[negatives] * len(negatives)).log()
        return sampled_softmax(users, table[at_negatives], negatives, expected, table[at_targets], targets, weights)

    @torch.no_grad()
    def _average(self) -> None:
        # Young averages must not remember the first weights.
        decay = min(self._settings.averaging, self.step_count / (self.step_count + 9))
        for name, value in self.model.named_parameters():
            self._averaged[name].lerp_(value, 1 - decay)

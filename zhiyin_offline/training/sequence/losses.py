"""How surprised the model is by the items that came next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Scores of a chunk of users: small enough for the cache of a core, large enough for a matrix product.
_CHUNK_SCORES = 2_000_000
# Of which there is a logarithm.
_LEAST_SHARE = 1e-38


class _FullSoftmax(torch.autograd.Function):
    """Cross entropy over all items, its gradients computed chunk by chunk on the way: the (users, items) scores never
    exist as a whole. Half the time of the plain expression on a CPU, and a fraction of its memory.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, targets: Tensor, weights: Tensor, factors: torch.dtype
    ) -> Tensor:
        users_gradient, items_gradient = torch.empty_like(users), torch.zeros_like(items)
        loss = users.new_zeros(())
        size = max(32, _CHUNK_SCORES // len(items))
        item_factors, user_factors = items.to(factors), users.to(factors)
        weighted = weights[:, None] * users
        weighted_factors = weighted.to(factors)
        for start in range(0, len(users), size):
            chunk = slice(start, start + size)
            # One pass, whatever the factors are; the weights and the targets count on the small side of the products.
            shares = torch.softmax(user_factors[chunk] @ item_factors.T, 1)
            at_target = shares.gather(1, targets[chunk, None]).float()
            loss -= (weights[chunk, None] * at_target.clamp_min(_LEAST_SHARE).log()).sum()
            users_gradient[chunk] = (shares @ item_factors).float()
            items_gradient += shares.T @ weighted_factors[chunk]
        users_gradient = weights[:, None] * (users_gradient - items[targets])
        items_gradient.index_add_(0, targets, weighted, alpha=-1)
        ctx.save_for_backward(users_gradient, items_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        users_gradient, items_gradient = ctx.saved_tensors
        return gradients[0] * users_gradient, gradients[0] * items_gradient, None, None, None


def full_softmax(
    users: Tensor, items: Tensor, targets: Tensor, weights: Tensor, factors: torch.dtype = torch.float32
) -> Tensor:
    """Cross entropy of the next item among all items.

    Args:
        users: Shape (n, d).
        items: Shape (m, d).
        targets: The row of the item that came, shape (n,).
        weights: Of each user in the sum.
        factors: What matrix products read; they sum in float32.
    """
    loss: Tensor = _FullSoftmax.apply(users, items, targets, weights, factors)  # type: ignore[no-untyped-call]
    return loss


def fast_factors(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, which makes a training nearly twice as fast; else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32


@dataclass(frozen=True)
class NegativeSampler:
    """Draws items to tell the target from: half of them evenly, half by how often they occur to the power .75.

    Attributes:
        probability: Of one draw, by item, shape (items,).
    """

    probability: Tensor

    @classmethod
    def of(cls, counts: Tensor) -> NegativeSampler:
        """The sampler for items that occur this often."""
        popular = counts.double() ** 0.75
        return cls((0.5 * popular / popular.sum() + 0.5 / len(counts)).float())

    def draw(self, count: int) -> Tensor:
        """Items, with repetition, shape (count,)."""
        totals = self.probability.double().cumsum(0)
        spots = torch.rand(count, dtype=torch.float64, device=totals.device) * totals[-1]
        return torch.searchsorted(totals, spots).clamp_max(len(totals) - 1)


def sampled_softmax(
    users: Tensor,
    items: Tensor,
    negatives: Tensor,
    log_expected: Tensor,
    target_vectors: Tensor,
    targets: Tensor,
    weights: Tensor,
) -> Tensor:
    """Cross entropy against a sample, each score less the logarithm of how often its item is expected in the sample
    (logQ correction, Bengio and Senécal, 2008): its gradient tends to that of the full softmax as the sample grows.

    Args:
        users: Shape (n, d).
        items: Vectors of the negatives, shape (k, d).
        negatives: Their items, shape (k,).
        log_expected: log(k * probability) of each negative, shape (k,).
        target_vectors: Shape (n, d).
        targets: The items that came, shape (n,).
        weights: Of each user in the sum.
    """
    scores = users @ items.T - log_expected
    scores = scores.masked_fill(targets[:, None] == negatives, -torch.inf)
    own = (users * target_vectors).sum(1)
    total = torch.logsumexp(torch.cat([own[:, None], scores], 1), 1)
    return (weights * (total - own)).sum()

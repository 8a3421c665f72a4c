"""The losses against PyTorch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")

from zhiyin_offline.training.sequence import losses  # noqa: E402


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    users = torch.randn(70, 16, generator=generator, requires_grad=True)
    items = torch.randn(300, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 300, (70,), generator=generator)
    weights = torch.rand(70, generator=generator)
    return users, items, targets, weights


def expected(problem: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    users, items, targets, weights = problem
    loss = (weights * torch.nn.functional.cross_entropy(users @ items.T, targets, reduction="none")).sum()
    return [loss, *torch.autograd.grad(loss, [users, items])]


def test_full_softmax_is_cross_entropy(problem: tuple[torch.Tensor, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_CHUNK_SCORES", 32 * 300)  # several chunks
    loss = losses.full_softmax(*problem)
    for got, wanted in zip([loss, *torch.autograd.grad(loss, problem[:2])], expected(problem), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_reduced_precision_stays_near(problem: tuple[torch.Tensor, ...]) -> None:
    loss = losses.full_softmax(*problem, factors=torch.bfloat16)
    for got, wanted in zip([loss, *torch.autograd.grad(loss, problem[:2])], expected(problem), strict=True):
        assert float((got - wanted).detach().norm() / wanted.detach().norm()) < 0.02


def test_sampled_softmax_estimates_the_full_one(problem: tuple[torch.Tensor, ...]) -> None:
    users, items, targets, weights = problem
    torch.manual_seed(4)
    sampler = losses.NegativeSampler.of(torch.arange(1, 301))
    negatives = sampler.draw(200_000)
    share = torch.bincount(negatives, minlength=300) / len(negatives)
    torch.testing.assert_close(share, sampler.probability, atol=1e-3, rtol=0.1)
    log_expected = (sampler.probability[negatives] * len(negatives)).log()
    loss = losses.sampled_softmax(users, items[negatives], negatives, log_expected, items[targets], targets, weights)
    for got, wanted in zip([loss, *torch.autograd.grad(loss, problem[:2])], expected(problem), strict=True):
        assert float((got - wanted).detach().norm() / wanted.detach().norm()) < 0.05

"""What a network is trained by, against calculations by hand; skipped, loudly, where torch is not installed."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("torch") is None:
    pytest.skip(
        'TORCH IS NOT INSTALLED: no loss of leaven.learners.Torch is tested. To test: pip install "leaven[torch]"',
        allow_module_level=True,
    )

import torch
from torch import nn

from leaven.learners.torch.losses import consolidation, distillation, fisher_information, loss_of
from leaven.learners.torch.training import Pace, learning_rate


class Plain(nn.Module):
    """A linear model of the numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.last = nn.Linear(inputs, outputs, dtype=torch.float64)

    def forward(self, numbers, codes):
        return self.last(numbers)


def chance(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=chance(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _same_chance():
    torch.manual_seed(0)


def test_the_loss_is_the_negative_log_likelihood():
    logits, label = some(50, 1), torch.tensor([0.0, 1.0] * 25, dtype=torch.float64)
    p = 1 / (1 + np.exp(-logits[:, 0].numpy()))
    chosen = np.where(label.numpy() == 1, p, 1 - p)
    assert float(loss_of("binary", logits, label)) == pytest.approx(-np.log(chosen).mean())
    assert float(loss_of("regression", logits, label)) == pytest.approx(((logits[:, 0] - label) ** 2 / 2).mean().item())
    several, which = some(50, 3), torch.arange(50.0) % 3
    shares = np.exp(several.numpy()) / np.exp(several.numpy()).sum(1, keepdims=True)
    told = -np.log(shares[np.arange(50), which.numpy().astype(int)]).mean()
    assert float(loss_of("multiclass", several, which)) == pytest.approx(told)


def test_distillation_is_the_cross_entropy_of_both_at_a_temperature():
    """Li and Hoiem's equations 2 and 3: probabilities to the power of 1 / T, made to sum to 1."""
    mine, parents = some(40, 4), some(40, 3, seed=3)

    def powered(logits: np.ndarray) -> np.ndarray:
        shares = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)) ** (1 / 2)
        return shares / shares.sum(1, keepdims=True)

    told = -(powered(parents.numpy()) * np.log(powered(mine.numpy()[:, :3]))).sum(1).mean()
    assert float(distillation("multiclass", mine, parents, temperature=2.0)) == pytest.approx(told)
    pair = torch.cat([torch.zeros(40, 1), mine[:, :1]], 1), torch.cat([torch.zeros(40, 1), parents[:, :1]], 1)
    one = distillation("binary", mine[:, :1], parents[:, :1], temperature=2.0)
    assert float(one) == pytest.approx(float(distillation("multiclass", *pair, temperature=2.0)))
    assert float(distillation("regression", parents, parents, temperature=1.0)) == 0


def test_the_penalty_is_a_sum_of_squares_weighted_by_what_matters():
    network = Plain(3, 1)
    anchor = {name: each.detach() - 2 for name, each in network.named_parameters()}
    fisher = {name: torch.full_like(each, 3.0) for name, each in network.named_parameters()}
    assert consolidation(network, anchor, fisher).item() == pytest.approx(3 * 4 * 4 / 2)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_fisher_information_of_one_output_is_exact(task):
    """Of a linear model: the mean of p (1 - p) x^2, or of x^2."""
    network, rows = Plain(3, 1), some(100, 3)
    found = fisher_information(task, network, rows, torch.zeros(100, 0, dtype=torch.long), sampler=chance())
    p = network(rows, None).detach()[:, :1].sigmoid()
    weight = p * (1 - p) if task == "binary" else torch.ones_like(p)
    np.testing.assert_allclose(found["last.weight"][0].numpy(), (weight * rows**2).mean(0).numpy())
    np.testing.assert_allclose(found["last.bias"][0].numpy(), weight.mean().numpy())


def test_the_fisher_information_of_classes_is_drawn_from_the_networks_own_answers():
    """Mean over 40 draws against p (1 - p) x^2; each draws 256 rows, so the error of the mean is about 3 %."""
    network, rows = Plain(2, 3), some(256, 2)
    nothing = torch.zeros(256, 0, dtype=torch.long)
    drawn = [fisher_information("multiclass", network, rows, nothing, sampler=chance(seed)) for seed in range(12)]
    p = network(rows, None).detach().softmax(1)
    exact = ((p * (1 - p))[:, :, None] * rows[:, None, :] ** 2).mean(0)
    mean = torch.stack([one["last.weight"] for one in drawn]).mean(0)
    np.testing.assert_allclose(mean.numpy(), exact.numpy(), rtol=0.15)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_rate_goes_as_pytorchs_own_schedules_do(schedule):
    pace = Pace(4, 32, 0.1, schedule, 0)
    ours = [learning_rate(pace, step=step, steps=20, taken=step) for step in range(20)]
    optimizer = torch.optim.SGD(Plain(1, 1).parameters(), lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for told in ours:
        assert told == pytest.approx(theirs.get_last_lr()[0] if schedule == "cosine" else 0.1)
        optimizer.step()
        theirs.step()


def test_warming_up_goes_on_where_it_stopped():
    pace = Pace(1, 32, 0.1, "constant", 10)
    assert [learning_rate(pace, step=0, steps=5, taken=taken) for taken in (0, 4, 9, 50)] == pytest.approx(
        [0.01, 0.05, 0.1, 0.1]
    )
    assert math.isclose(learning_rate(Pace(1, 32, 0.1, "cosine", 10), step=10, steps=20, taken=4), 0.025)

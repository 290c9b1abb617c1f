"""Evidence made of a few numbers, and what a stage says to it; a test names only what matters to it."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from leaven.experiments.evidence import ArmEvidence, CanaryEvidence
from leaven.experiments.side_by_side import ShadowEvidence
from leaven.stats.moments import Moments, moments

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def shadow_seen(champion, challenger, **other):
    losses = {"champion_loss": moments(champion), "challenger_loss": moments(challenger),
              "loss_difference": moments(challenger - champion)}  # fmt: skip
    return ShadowEvidence(**({"pairs": len(champion), "units": len(champion)} | losses | other))


def canary_seen(champion=None, canary=None, **other):
    def arm(losses, prefix):
        counts = {name.removeprefix(prefix): kept for name, kept in other.items() if name.startswith(prefix)}
        count = 0 if losses is None else len(losses)
        kept = Moments() if losses is None else moments(losses)
        return ArmEvidence(**({"units": count, "requests": count, "loss": kept} | counts))

    return CanaryEvidence(arm(champion, "champion_"), arm(canary, "canary_"))


def judged(stage, evidence, *, elapsed=DAY, look=1, step=0):
    return stage.judge(stage.steps()[step], evidence, elapsed=elapsed, look=look, metric="log_loss")


def losses(size, *, mean=0.5, seed=0):
    return np.random.default_rng(seed).gamma(0.8, mean / 0.8, size)

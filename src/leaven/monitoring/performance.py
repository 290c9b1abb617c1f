"""How well does the champion do on labels that have matured?"""

from __future__ import annotations

from datetime import datetime, timedelta

from leaven.duration import micros
from leaven.events.columns import Examples
from leaven.events.source import Span
from leaven.monitoring.signal import Signal
from leaven.stats.answers import given
from leaven.stats.intervals import Interval
from leaven.stats.metrics import METRICS


def matured_span(now: datetime, *, over: timedelta, window: timedelta) -> Span:
    """Return the latest stretch of length `over` whose every label has matured by `now`."""
    end = now - window
    return Span(end - over, end)


def performance(examples: Examples, metric: str, *, version: str, now: datetime, reference: Interval | None) -> Signal:
    """Return the champion's metric on the mature ones of these examples, beside what it was when it was proven.

    Only answers that `version` gave as champion count: a canary's are its own business, and those of the champion
    before it say nothing of this one.
    """
    served = examples.predictions
    its_own = (served.arm == "champion") & (served.version == version) & given(served.answer)
    judged = examples.take(its_own).mature()
    measured = METRICS[metric].measure(judged.labels.value, judged.predictions.answer)
    return Signal(f"performance:{metric}", micros(now), measured, reference)

from __future__ import annotations

from datetime import timedelta

from leaven.storage.horizon import Horizon

from .builders import NOON


class Elapsed:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def seconds(count: float):
    return NOON + timedelta(seconds=count)


def a_horizon(grace: float = 8.0):
    passed = Elapsed()
    return Horizon(timedelta(seconds=grace), timer=passed), passed


def test_a_clock_that_nobody_sets_is_followed_at_the_distance_of_the_grace():
    horizon, passed = a_horizon()
    for now in (0.0, 0.5, 3.0, 20.0, 20.1, 60.0):
        passed.seconds = now
        assert horizon.at(seconds(now)) == seconds(now - 8)


def test_a_clock_that_is_put_forward_is_followed_once_what_was_on_its_way_has_arrived():
    horizon, passed = a_horizon()
    horizon.at(seconds(0))
    passed.seconds = 1.0
    assert horizon.at(seconds(3601)) == seconds(-7)  # a record of before the jump may still be on its way
    passed.seconds = 8.5
    assert horizon.at(seconds(3608.5)) == seconds(0.5)
    passed.seconds = 9.5
    assert horizon.at(seconds(3609.5)) == seconds(3601.5)


def test_a_clock_that_is_put_back_takes_the_horizon_back():
    horizon, passed = a_horizon()
    horizon.at(seconds(0))
    passed.seconds = 1.0
    assert horizon.at(seconds(-3599)) == seconds(-3607)
    passed.seconds = 2.0
    assert horizon.at(seconds(2)) == seconds(-3599)  # and when it is set right, what was stamped meanwhile counts
    passed.seconds = 12.0
    assert horizon.at(seconds(12)) == seconds(4)


def test_a_clock_that_stands_still_between_requests_is_taken_at_its_word():
    horizon, passed = a_horizon(grace=0.0)
    for now in (0, 86_400, 40):
        assert horizon.at(seconds(now)) == seconds(now)
        passed.seconds += 0.001

"""`leaven check` says whether an A/B test will get the units that it plans for."""

from __future__ import annotations

import pytest

from leaven.cli.findings import size_findings
from leaven.experiments import ABTest
from tests.controller.pasts import a_loop, a_past


@pytest.mark.parametrize(
    ("stage", "level", "told"),
    [
        (ABTest(units=200, over="6h"), "ok", "it plans for 200"),
        (ABTest(units=90_000), "note", "it plans for 90,000: only a large effect would be found before it gives up"),
        (ABTest(units=400, at_least="1d", patience="60h"), "problem", "whose labels are final in time"),
    ],
)
def test_units_that_come_in_time_are_held_against_the_plan(stage, level, told):
    loop = a_loop(rollout=[stage])
    about = "A/B test 50%"
    found = {finding.about: finding for finding in size_findings(loop, a_past(24))}
    assert (found[about].level, told in found[about].text) == (level, True), found[about]

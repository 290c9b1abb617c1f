"""What the log is read for before a trial is planned."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from leaven.controller.history import HistoryLog
from leaven.events import Happens, Label
from leaven.events.columns import Matched, column_time
from leaven.events.hearing import Hearing
from leaven.experiments.observed import observe
from leaven.experiments.routing import RoutingTable, arms_for
from tests.controller.pasts import a_loop, a_past, day

RULE = Label("bought", above=0.5, within="6h")


class Half:
    """A model that always says the same."""

    def __init__(self, answer: float) -> None:
        self._answer = answer

    def answer(self, columns):
        return np.full(len(columns["x"]), self._answer)


def a_log(*, served: float | None) -> tuple[HistoryLog, pd.DataFrame]:
    past = a_past(24)
    log = HistoryLog(past)
    table = None
    if served is not None:
        table = RoutingTable("shop", 1, 0, a_loop().schema, "s", arms_for(("1", "digest")))
    log.serve(day(24), table, lambda version: Half(served))
    rows = pd.DataFrame(
        {"at": past.at, "told": past.label_at, "bought": past.outcome, "unit": past.unit, "day": (past.at -
         column_time(day(0))) // np.timedelta64(86_400_000_000, "us")}
    )  # fmt: skip
    return log, rows


def test_what_is_observed_is_what_pandas_counts():
    log, rows = a_log(served=0.3)
    found = observe(log, RULE, until=day(24), days=10, metric="brier")
    latest = rows[rows["day"] >= 14]
    assert (found.days, found.predictions, found.answers) == (10, len(latest), "served")
    assert found.curve.seen == tuple(latest[latest["day"] < 14 + days]["unit"].nunique() for days in range(1, 11))
    earlier = rows[(rows["at"] >= column_time(day(13.75))) & (rows["at"] < column_time(day(23.75)))]
    told = earlier[earlier["told"].notna()]
    assert found.mature == len(earlier)
    assert found.labelled == pytest.approx(len(told) / len(earlier))
    per_unit = ((told["bought"] - 0.3) ** 2).groupby(told["unit"]).mean()
    assert (found.loss.count, found.loss.mean) == (len(per_unit), pytest.approx(per_unit.mean()))
    assert found.loss.variance == pytest.approx(per_unit.var())
    week = told.assign(back=(column_time(day(23.75)) - told["at"]) // pd.Timedelta(days=7)).query("back == 0")
    by_unit = ((week["bought"] - 0.3) ** 2).groupby(week["unit"]).mean()
    assert found.losses[7].mean == pytest.approx(by_unit.mean())
    daily = told.assign(back=(column_time(day(23.75)) - told["at"]) // pd.Timedelta(days=1))
    by_day = ((daily["bought"] - 0.3) ** 2).groupby([daily["unit"], daily["back"]]).mean()
    assert (found.losses[1].count, found.losses[1].variance) == (len(by_day), pytest.approx(by_day.var()))
    assert set(found.losses) == {1, 7, 10}
    assert found.losses[10] == found.loss
    waited = (told["told"] - told["at"]) / pd.Timedelta(days=1)
    assert found.delays == pytest.approx(waited.quantile([0.5, 0.9, 0.99]).tolist())


def test_where_nothing_was_served_the_loss_is_that_of_always_saying_the_mean():
    log, rows = a_log(served=None)
    found = observe(log, RULE, until=day(24), days=30, metric="log_loss")
    told = rows[rows["told"].notna() & (rows["at"] < column_time(day(23.75)))]
    p = told["bought"].mean()
    assert found.answers == "constant"
    per_unit = -np.where(told["bought"] > 0.5, np.log(p), np.log(1 - p))
    assert found.loss.mean == pytest.approx(pd.Series(per_unit).groupby(told["unit"].to_numpy()).mean().mean())
    assert found.label.mean == pytest.approx(told.groupby("unit")["bought"].mean().mean())


def test_of_an_empty_stretch_nothing_is_known():
    log, _ = a_log(served=0.5)
    found = observe(log, RULE, until=day(-20), days=3, metric="log_loss")
    assert (found.predictions, found.labelled, found.delays, found.loss.count) == (0, None, None, 0)
    assert found.curve.seen == (0, 0, 0)


def test_the_first_word_that_counts_is_the_one_that_is_waited_for():
    at = np.array(["2026-01-01"] * 4, dtype="datetime64[us]")
    hours = np.array([3, 1, 8, 2, -1, 5], dtype="m8[h]").astype("m8[us]")
    feedback = Matched(
        row=np.array([0, 0, 1, 2, 3, 3]), at=at[0] + hours, received_at=at[0] + hours + np.timedelta64(60, "m"),
        name=np.array(["bought"] * 3 + ["seen"] + ["bought"] * 2, dtype=object),
        kind=np.full(6, "label", dtype=object), value=np.ones(6),
    )  # fmt: skip
    for rule in (RULE, Happens("bought", within="6h")):
        heard = Hearing(rule).resolve(at, feedback, as_of=day(0) + timedelta(hours=9))
        np.testing.assert_allclose(heard.value * 24, [2, np.nan, np.nan, 6])  # too late, another name, too early
        assert heard.mature.all()
    early = Hearing(RULE).resolve(at, feedback, as_of=day(0) + timedelta(hours=1))
    assert np.isnan(early.value).all()
    assert not early.mature.any()

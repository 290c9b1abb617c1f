"""What a model learns from is what it was served with, bit for bit: nothing is computed a second time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np

from leaven.app import App
from leaven.controller.steps import run_step
from leaven.duration import micros
from leaven.events.source import Span
from leaven.learners.process import train_here
from leaven.storage.flusher import Flusher
from tests.gateway.installations import FLIGHTS, Installation, RunningGateway, a_flight
from tests.storage.builders import until_sealed

LOOP_FILE = """
from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.learners import XGBoost
from leaven.training import Stateless

loop = Loop(
    "flights",
    features=[Feature("carrier", "category", required=True), Feature("dep_hour", "int"), Feature("dep_delay", "float"),
              Feature("weekend", "bool")],
    unit="tail_number",
    label=Label("arr_delay", above=15, within="1h"),
    learner=XGBoost(rounds=2, threads=1),
    data=AllHistory(),
    plan=Stateless(),
)
"""
SENT = [
    {"carrier": "AA", "dep_hour": 7, "dep_delay": 0.1 + 0.2, "weekend": True},
    {"carrier": "never seen", "dep_hour": -3, "dep_delay": 1e-300, "weekend": False},
    {"carrier": "UA", "dep_hour": None, "dep_delay": -0.0, "weekend": None},
    {"carrier": "ÅÖ 東京", "dep_hour": 2**40, "dep_delay": 123456789.123456789, "weekend": True},
    {"carrier": "7", "dep_hour": 7, "dep_delay": None, "weekend": False},
]


def test_training_reads_the_features_that_were_served(gateway: RunningGateway, installation: Installation) -> None:
    labels = [float(i % 2) * 40 for i in range(len(SENT))]
    replies = [gateway.infer(a_flight(**sent)) for sent in SENT]
    assert [reply.status for reply in replies] == [200] * len(SENT), [reply.json for reply in replies]
    ids = [reply.json["parameters"]["prediction_id"] for reply in replies]
    reports = [
        {"loop": "flights", "name": "arr_delay", "prediction_id": one, "value": label}
        for one, label in zip(ids, labels, strict=True)
    ]
    assert gateway.ask("POST", "/v1/feedback", json.dumps({"feedback": reports})).status == 200
    until_sealed(installation.settings.wal)
    app = App(installation.settings)
    Flusher(installation.settings.wal, app.lake).flush_once()

    file = installation.settings.home / "flights.py"
    file.write_text(LOOP_FILE)
    loop = app.enter(file)
    seen = []

    def train(loop, data, *, mode, parent, cancelled):
        seen.append(data)
        return train_here(loop.learner, data, mode=mode, seed=loop.seed)

    as_of = app.clock.now() + loop.label.window + loop.holdout_length + timedelta(minutes=5)
    payload = {"loop": "flights", "refresh": "flights-r1", "as_of": micros(as_of), "cause": {}}
    parts = replace(app.parts(), train=train)
    for step in ("snapshot", "train"):
        result = run_step(step, parts, payload, now=as_of)
        assert result.code == "done", result.payload
        payload = result.payload

    (data,) = seen
    served = app.source("flights").examples(_all(as_of), loop.label, as_of=as_of).predictions.id.tolist()
    order = [served.index(one) for one in ids]
    matrix, label = data.matrix[order], data.label[order]
    assert label.tolist() == [float(value > 15) for value in labels]
    for column, (name, kind, _) in enumerate(FLIGHTS.features):
        told = [sent[name] for sent in SENT]
        if kind == "category":
            codes = matrix[:, column].astype(int)
            assert [data.encoder.categories[name][code] for code in codes] == told
        else:
            expected = np.array([np.nan if value is None else float(value) for value in told])
            assert matrix[:, column].tobytes() == expected.tobytes()
    app.close()


def _all(end):
    return Span(end - timedelta(days=30), end)

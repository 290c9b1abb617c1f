"""A real gateway whose model tells several classes apart and reads text: over every protocol, and as it is logged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from sklearn.linear_model import SGDClassifier

from leaven.client import Client
from leaven.events.records import FeedbackReceived, PredictionServed
from leaven.learners import ScikitLearn
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Schema
from leaven.training.learner import training_set
from tests.gateway.installations import Installation, RunningGateway, gateway_on, installation_in

CLASSES = ("cs.CG", "cs.CY", "cs.SD")
TITLES = {"cs.CG": "convex hull of points", "cs.CY": "ethics of policy", "cs.SD": "speech audio signals"}
SCHEMA = Schema((("title", "text", True), ("year", "int", False)), "reader", "multiclass", classes=CLASSES)
ROW = {"title": TITLES["cs.SD"], "year": 2015}


def a_version(classes=CLASSES, *, noise: float = 0.0) -> ModelArtifact:
    """A model that knows the first words of each class."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, len(classes), 300)
    said = [TITLES[classes[place]] if rng.random() >= noise else "nothing to say" for place in label]
    columns = {"title": np.array(said, dtype=object), "year": rng.integers(2007, 2020, 300).astype(float)}
    schema = Schema(SCHEMA.features, SCHEMA.unit, "multiclass", classes=classes)
    data = training_set(schema, columns, label.astype(np.float64))
    learner = ScikitLearn(SGDClassifier(loss="log_loss", max_iter=20, tol=None), categories="one-hot")
    return ModelArtifact(learner.format, data.encoder, repr(learner), learner.fit(data, seed=0))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    artifacts = {"1": a_version(), "2": a_version(noise=0.5), "few": a_version(CLASSES[:2])}
    with installation_in(tmp_path_factory.mktemp("titles"), artifacts) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(installation: Installation) -> Iterator[RunningGateway]:
    """Version 1 serves; version `few`, which knows two of the three classes, gets half of the units."""
    table = installation.publish(champion="1", canary="few", share=0.5, shadows=["2"], loop="titles", schema=SCHEMA)
    with gateway_on(installation.settings, grpc=True) as running:
        running.until_revision(table.revision, "titles")
        yield running


def predict(gateway: RunningGateway, *rows, **more):
    reply = gateway.ask("POST", "/v1/models/titles/predict", json.dumps({"rows": list(rows), **more}))
    assert reply.status == 200, reply.body
    return reply.json["predictions"]


def unit_of(gateway: RunningGateway, arm: str) -> str:
    return next(unit for unit in map(str, range(100)) if predict(gateway, ROW, unit=unit)[0]["arm"] == arm)


def test_a_row_is_answered_with_the_likeliest_class_and_the_probability_of_each(gateway):
    unit = unit_of(gateway, "champion")
    said = predict(gateway, *({"title": title} for title in TITLES.values()), unit=unit)
    assert [each["answer"] for each in said] == list(CLASSES)
    for each in said:
        assert list(each["probabilities"]) == list(CLASSES)
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert each["probabilities"][each["answer"]] == max(each["probabilities"].values())


def test_a_version_that_knows_fewer_classes_gives_the_others_no_probability(gateway):
    (said,) = predict(gateway, ROW, unit=unit_of(gateway, "canary"))
    assert said["version"] == "few"
    assert said["probabilities"]["cs.SD"] == 0
    assert sum(said["probabilities"].values()) == pytest.approx(1)


def test_a_stock_client_gets_names_and_probabilities_over_both_protocols(gateway):
    unit = unit_of(gateway, "champion")
    (expected,) = predict(gateway, ROW, unit=unit)
    for module, url in ((tritonclient.http, gateway.address), (tritonclient.grpc, gateway.grpc)):
        client = module.InferenceServerClient(url)
        title = module.InferInput("title", [1], "BYTES")
        title.set_data_from_numpy(np.array([ROW["title"]], dtype=object))
        year = module.InferInput("year", [1], "INT64")
        year.set_data_from_numpy(np.array([ROW["year"]]))
        reply = client.infer("titles", [title, year], headers={"leaven-unit": unit})
        assert reply.as_numpy("answer").tolist() == [b"cs.SD"]
        np.testing.assert_allclose(reply.as_numpy("probabilities"), [list(expected["probabilities"].values())])
        about = client.get_model_metadata("titles")
        outputs = about["outputs"] if isinstance(about, dict) else [
            {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in about.outputs
        ]  # fmt: skip
        told = {each["name"]: (each["datatype"], [int(size) for size in each["shape"]]) for each in outputs}
        assert told["answer"] == ("BYTES", [-1])
        assert told["probabilities"] == ("FP64", [-1, 3])
        client.close()


def test_an_output_of_probabilities_can_be_asked_for_alone_in_json(gateway):
    inputs = [{"name": "title", "shape": [2], "datatype": "BYTES", "data": [TITLES["cs.CG"], TITLES["cs.CY"]]}]
    reply = gateway.infer({"inputs": inputs, "outputs": [{"name": "predict_proba"}]}, model="titles")
    (output,) = reply.json["outputs"]
    assert output["shape"] == [2, 3]
    assert len(output["data"]) == 6
    refused = gateway.infer({"inputs": inputs, "outputs": [{"name": "probs"}]}, model="titles")
    assert refused.status == 400
    assert "probabilities" in refused.json["error"]


def test_a_class_is_reported_by_its_name(gateway, installation):
    with Client(gateway.url) as client:
        prediction = client.predict("titles", ROW, unit="told")
        assert prediction.answer in CLASSES
        assert prediction.probabilities is not None
        client.feedback("titles", name="label", prediction_id=prediction.id, value="cs.CY")
    (kept,) = [event for event in installation.events() if isinstance(event, FeedbackReceived)]
    assert (kept.prediction, kept.value) == (prediction.id, 1.0)
    report = {"loop": "titles", "name": "label", "unit": "u", "value": "cs.XX"}
    refused = gateway.ask("POST", "/v1/feedback", json.dumps(report))
    assert refused.status == 400
    assert "there is no class 'cs.XX'. Send one of cs.CG, cs.CY, cs.SD" in refused.json["error"]


def test_a_class_is_still_reported_by_name_while_the_loop_is_out_of_service(gateway):
    assert gateway.ask("POST", "/v2/repository/models/titles/unload").status == 200
    try:
        report = {"loop": "titles", "name": "label", "unit": "late", "value": "cs.SD"}
        assert gateway.ask("POST", "/v1/feedback", json.dumps(report)).status == 200
        refused = gateway.ask("POST", "/v1/feedback", json.dumps(report | {"value": "cs.XX"}))
        assert "there is no class 'cs.XX'" in refused.json["error"]
    finally:
        assert gateway.ask("POST", "/v2/repository/models/titles/load").status == 200


def test_a_text_that_cannot_be_one_is_refused_as_a_text(gateway):
    rows = json.dumps({"rows": [{"title": 2**70}]})
    refused = gateway.ask("POST", "/v1/models/titles/predict", rows)
    assert refused.status == 400
    assert "feature 'title' takes a text" in refused.json["error"]


def test_what_is_logged_is_read_again_as_probabilities(gateway, installation, tmp_path):
    (said,) = predict(gateway, ROW, unit=unit_of(gateway, "champion"))
    end = time.monotonic() + 30
    while True:  # the shadow answers after the reply
        records = [each for each in installation.events() if isinstance(each, PredictionServed)]
        own = {each.role: each for each in records if each.id == said["prediction_id"]}
        if len(own) == 2:
            break
        assert time.monotonic() < end, own
        time.sleep(0.05)
    assert own["live"].answer == tuple(said["probabilities"].values())
    assert own["live"].features == ROW
    assert len(own["shadow"].answer) == 3

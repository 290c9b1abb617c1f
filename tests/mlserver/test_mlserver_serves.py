"""MLServer 1.7.1, as `make mlserver` installs it, serves a scikit-learn model over HTTP."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest

from tests.mlserver.serving import installed, mlserver_with

pytestmark = pytest.mark.skipif(not installed(), reason="there is no MLServer; make mlserver installs it")


def test_mlserver_answers_what_the_estimator_answers(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(200, 3))
    estimator = LogisticRegression().fit(matrix, matrix[:, 0] > 0)
    asked = {
        "inputs": [{"name": "rows", "shape": [2, 3], "datatype": "FP64", "data": matrix[:2].ravel().tolist()}],
        "outputs": [{"name": "predict_proba"}],
    }
    with mlserver_with(tmp_path, {"logistic": estimator}) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request("GET", "/v2")
        assert json.loads(connection.getresponse().read())["version"] == "1.7.1"
        connection.request("POST", "/v2/models/logistic/infer", json.dumps(asked), {"content-type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        connection.close()
    (output,) = reply["outputs"]
    assert output["shape"] == [2, 2]
    assert output["data"] == pytest.approx(estimator.predict_proba(matrix[:2]).ravel().tolist(), abs=1e-12)

"""The least that serves a model over HTTP: an ASGI application that reads with msgspec, predicts, and answers.

    python benchmarks/peers/bare.py SOCKET trees|pipeline|direct FILE

Nothing is checked, assigned or logged, and the library predicts as anyone would call it. `direct` predicts with what
Leaven makes of the model instead, so that what is left is the cost of the gateway alone.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn

CODES = {"AA": 0.0, "DL": 1.0, "UA": 2.0}


class Input(msgspec.Struct):
    """A tensor of a request, as far as it is read here."""

    name: str
    data: list[Any]


class Request(msgspec.Struct):
    """A request, as far as it is read here."""

    inputs: list[Input]


def predictor(kind: str, file: str) -> Callable[[Any], Any]:
    """Return what makes probabilities of a matrix."""
    if kind == "trees":
        import xgboost

        booster = xgboost.Booster({"nthread": 1})
        booster.load_model(file)
        return lambda matrix: booster.inplace_predict(matrix, validate_features=False)
    if kind == "direct":
        return leaven_model(Path(file)).predict
    import joblib

    estimator = joblib.load(file)
    return lambda matrix: estimator.predict_proba(matrix)[:, 1]


def leaven_model(folder: Path) -> Any:
    """Return the model of a folder with its files, as a gateway would load it."""
    from leaven.learners import load

    (format,) = (folder / "format").read_text().split()
    return load(format, {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "format"})


def application(predict: Callable[[Any], Any]) -> Any:
    """Return the ASGI application."""
    decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
    headers = [(b"content-type", b"application/json")]

    async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        message = await receive()
        given = {each.name: each.data[0] for each in decode(message["body"]).inputs}
        given["carrier"] = CODES.get(given["carrier"], np.nan)
        answers = predict(np.array([list(given.values())], dtype=np.float64))
        body = encode({"model_name": "bench", "outputs": [
            {"name": "answer", "shape": [len(answers)], "datatype": "FP64", "data": answers.tolist()}
        ]})  # fmt: skip
        await send({"type": "http.response.start", "status": 200,
                    "headers": [*headers, (b"content-length", b"%d" % len(body))]})  # fmt: skip
        await send({"type": "http.response.body", "body": body})

    return app


if __name__ == "__main__":
    config = uvicorn.Config(application(predictor(sys.argv[2], sys.argv[3])), http="httptools", loop="uvloop",
                            ws="none", lifespan="off", access_log=False, log_level="warning")  # fmt: skip
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])

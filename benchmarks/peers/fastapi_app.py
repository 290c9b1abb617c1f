"""A model behind FastAPI and pydantic, as its tutorials write it; runs in MLServer's environment, which has both.

.venv-mlserver/bin/python benchmarks/peers/fastapi_app.py SOCKET FILE
"""

import socket
import sys

import joblib
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

CODES = {"AA": 0.0, "DL": 1.0, "UA": 2.0}


class Row(BaseModel):
    """What is asked about."""

    unit: str
    carrier: str
    x0: float
    x1: float
    x2: float
    x3: float
    x4: float
    x5: float
    x6: float
    x7: float
    x8: float


class Answer(BaseModel):
    """What is answered."""

    answer: float


app = FastAPI()
estimator = joblib.load(sys.argv[2])


@app.post("/predict")
async def predict(row: Row) -> Answer:
    """Return the probability."""
    numbers = [row.x0, row.x1, row.x2, row.x3, row.x4, row.x5, row.x6, row.x7, row.x8]
    matrix = np.array([[CODES.get(row.carrier, np.nan), *numbers]])
    return Answer(answer=float(estimator.predict_proba(matrix)[0, 1]))


if __name__ == "__main__":
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(
        sockets=[socket.socket(fileno=int(sys.argv[1]))]
    )

"""Models that load and then hurt whoever runs them, as estimators that an owner might trust by name."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
import skops.io
from sklearn.base import BaseEstimator, ClassifierMixin

from leaven.learners import ScikitLearn
from leaven.learners.artifact import ModelArtifact
from leaven.loop import Schema
from tests.gateway.installations import training_set


class Crashes(ClassifierMixin, BaseEstimator):
    """Takes its process with it, on every row that is real (the made-up ones are zeros)."""

    def predict_proba(self, matrix):
        if np.nan_to_num(matrix).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return np.full((len(matrix), 2), 0.5)


class Hangs(ClassifierMixin, BaseEstimator):
    """Never answers a real row."""

    def predict_proba(self, matrix):
        if np.nan_to_num(matrix).any():
            time.sleep(3600)
        return np.full((len(matrix), 2), 0.5)


class EatsMemory(ClassifierMixin, BaseEstimator):
    """Takes 64 MB more with every call, and keeps it."""

    def predict_proba(self, matrix):
        self.kept = [*getattr(self, "kept", []), np.ones(2**23)]
        return np.full((len(matrix), 2), 0.5)


class SlowToLoad(ClassifierMixin, BaseEstimator):
    """Takes a minute to load."""

    def __setstate__(self, state):
        time.sleep(60)
        super().__setstate__(state)

    def predict_proba(self, matrix):
        return np.full((len(matrix), 2), 0.5)


class DiesLoading(ClassifierMixin, BaseEstimator):
    """Takes its process with it while it is loaded."""

    def __setstate__(self, state):
        if "fitted" in state:
            os.kill(os.getpid(), signal.SIGKILL)

    def predict_proba(self, matrix):
        return np.full((len(matrix), 2), 0.5)


KINDS: dict[str, type] = {kind.__name__: kind for kind in (Crashes, Hangs, EatsMemory, SlowToLoad, DiesLoading)}
TRUSTED = ",".join(f"{__name__}.{name}" for name in KINDS)


def misbehaving_artifact(kind: str, schema: Schema) -> ModelArtifact:
    """An artifact of a model of this kind."""
    from sklearn.linear_model import SGDClassifier

    data = training_set(schema)
    learner = ScikitLearn(SGDClassifier(loss="log_loss"))
    files: dict[str, Any] = dict(learner.fit(data, seed=0))
    (name,) = [name for name in files if name.endswith(".skops")]
    model = KINDS[kind]()
    model.fitted = True
    files[name] = skops.io.dumps(model)
    return ModelArtifact(learner.format, data.encoder, kind, files)

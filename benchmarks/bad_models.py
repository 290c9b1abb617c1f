"""What are the worst shadows like? Estimators that their owner trusts by name, and that hurt whoever runs them."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Hangs(ClassifierMixin, BaseEstimator):
    """Never answers."""

    def predict_proba(self, matrix: Any) -> Any:
        """Sleep; the made-up row of zeros that comes first is answered."""
        if np.nan_to_num(matrix).any():
            time.sleep(3600)
        return np.full((len(matrix), 2), 0.5)


class Crashes(ClassifierMixin, BaseEstimator):
    """Takes its process with it."""

    def predict_proba(self, matrix: Any) -> Any:
        """End the process."""
        if np.nan_to_num(matrix).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return np.full((len(matrix), 2), 0.5)


class Slow(ClassifierMixin, BaseEstimator):
    """Takes 20 ms, a hundred times as long as the model that serves; all of it on a processor."""

    def predict_proba(self, matrix: Any) -> Any:
        """Compute in vain."""
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        return np.full((len(matrix), 2), 0.5)


class Garbage(ClassifierMixin, BaseEstimator):
    """Answers with what is no number."""

    def predict_proba(self, matrix: Any) -> Any:
        """Return NaN."""
        return np.full((len(matrix), 2), np.nan)


class Fine(ClassifierMixin, BaseEstimator):
    """Answers at once: what a shadow costs at all."""

    def predict_proba(self, matrix: Any) -> Any:
        """Return one half."""
        return np.full((len(matrix), 2), 0.5)


KINDS = (Hangs, Crashes, Slow, Garbage, Fine)

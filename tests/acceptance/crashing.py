"""A model that passes every gate, and takes its process with it on rows that only production has."""

from __future__ import annotations

import os
import signal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class DiesOnSomeRows(ClassifierMixin, BaseEstimator):
    """Answers by the first feature; ends its process where that is 3 to the last digit, as the visitors send it."""

    def predict_proba(self, matrix):
        x = np.asarray(matrix, dtype=float)[:, 0]
        if (x == 3.0).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        bought = 1 / (1 + np.exp(-2 * x))
        return np.column_stack([1 - bought, bought])


TRUSTED = f"{__name__}.{DiesOnSomeRows.__name__}"

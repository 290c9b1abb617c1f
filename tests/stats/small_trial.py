"""The small data set of the worked cases: 40 + 40 units with a denominator, a metric and a covariate each."""

from __future__ import annotations

import numpy as np

_I = np.arange(40)
CONTROL = {"d": 1.0 + 7 * _I % 5, "m": (3 * _I % 4) + (_I % 7 == 0) * 1.0, "x": 1.0 * (3 * _I % 4) + _I % 3}
CANDIDATE = {"d": 1.0 + 3 * _I % 5, "m": (5 * _I % 4) + (_I % 3 == 0) * 1.0, "x": 1.0 * (5 * _I % 4) + _I % 5}

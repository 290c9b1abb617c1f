"""How does a gateway ask a model of LightGBM, with nothing of Python in between?

By LightGBM's C interface, in the very library that its package brings, and by the function that the package itself
calls. The package is not imported: it takes scikit-learn, SciPy and, where they are, pandas along, 150 MB in every
process and a second at every start.

Source: https://lightgbm.readthedocs.io/en/latest/C-API.html
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from leaven.errors import LeavenError
from leaven.training.encoding import Matrix

_NAMES = ("lib_lightgbm.so", "lib_lightgbm.dylib", "lib_lightgbm.dll")
_FLOAT64, _BY_ROW, _NORMAL, _ALL = 1, 1, 0, -1
_HOW = b"num_threads=1"  # per call: a gateway answers many requests side by side


class LightGBMRefused(LeavenError, RuntimeError):
    """LightGBM's library refused what it was given; the text is its own."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    def __str__(self) -> str:
        return next((line.strip() for line in self.said.splitlines() if line.strip()), "LightGBM does not say why")


@cache
def library() -> ctypes.CDLL | None:
    """Return LightGBM's library, or None if it is not where its package keeps it."""
    spec = find_spec("lightgbm")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in (Path(folder) / place / name for place in ("lib", "bin") for name in _NAMES):
            if file.is_file():
                return _typed(ctypes.CDLL(str(file)))
    return None


def _typed(found: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions take, so that a mistake here is an error and not a crash."""
    handle, text, number, large = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int64
    found.LGBM_GetLastError.restype = text
    for name, takes in {
        "LGBM_BoosterLoadModelFromString": [text, ctypes.POINTER(number), ctypes.POINTER(handle)],
        "LGBM_BoosterFree": [handle],
        "LGBM_BoosterCalcNumPredict": [handle, number, number, number, number, ctypes.POINTER(large)],
        "LGBM_BoosterPredictForMat": [
            handle, handle, number, ctypes.c_int32, ctypes.c_int32, number, number, number, number, text,
            ctypes.POINTER(large), handle,
        ],
    }.items():  # fmt: skip
        function = getattr(found, name)
        function.argtypes, function.restype = takes, number
    return found


class NativeLightGBM:
    """A model that is asked by LightGBM's C interface; prediction is read-only, so threads may share it."""

    def __init__(self, found: ctypes.CDLL, stored: bytes, *, classes: int = 0) -> None:
        """Read a stored model, which must be whole: the library ends the process on a text that is cut off.

        Raises:
            LightGBMRefused: it cannot be read, or does not give one answer per row, or one for each of the `classes`.
        """
        self._lightgbm, self._handle = found, ctypes.c_void_p()
        rounds, answers = ctypes.c_int(), ctypes.c_int64()
        self._check(found.LGBM_BoosterLoadModelFromString(stored, ctypes.byref(rounds), ctypes.byref(self._handle)))
        finalize(self, found.LGBM_BoosterFree, self._handle)
        self._check(found.LGBM_BoosterCalcNumPredict(self._handle, 1, _NORMAL, 0, _ALL, ctypes.byref(answers)))
        self._answers = answers.value  # per row: one, or one for each class
        if self._answers != (classes or 1):  # more would be written behind the end of what we give it to write to
            raise LightGBMRefused(f"the model gives {self._answers} answers per row, not {classes or 1}")

    def predict(self, matrix: Matrix) -> NDArray[np.float64]:
        """Return one answer per row: the probability of class 1, or the value; of each class, shape (rows, classes).

        Raises:
            LightGBMRefused: the rows are not of the model's width.
        """
        rows = np.ascontiguousarray(matrix, dtype=np.float64)
        answers = np.empty(len(rows) if self._answers == 1 else (len(rows), self._answers))
        if not len(rows):
            return answers
        written = ctypes.c_int64()
        self._check(
            self._lightgbm.LGBM_BoosterPredictForMat(
                self._handle, _address(rows), _FLOAT64, *rows.shape, _BY_ROW, _NORMAL, 0, _ALL, _HOW,
                ctypes.byref(written), _address(answers),
            )
        )  # fmt: skip
        return answers

    def _check(self, failed: int) -> None:
        if failed:
            raise LightGBMRefused(self._lightgbm.LGBM_GetLastError().decode(errors="replace"))


def _address(array: NDArray[np.float64]) -> int:
    return int(array.__array_interface__["data"][0])

"""How does a gateway ask a booster of XGBoost, with nothing of Python in between?

By XGBoost's C interface, in the very library that its package brings. The package itself is not imported: it takes
scikit-learn and SciPy along, a hundred megabytes in every process and a second at every start, and its method for one
row asks first of which library its argument is.

Two ways of the C interface answer: `XGBoosterPredictFromDense` reads a matrix where it is, which is the direct form;
`XGBoosterPredictFromDMatrix` makes XGBoost's own kind of matrix first, which is what it is compared with.

Source: https://xgboost.readthedocs.io/en/stable/c.html
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from leaven.errors import LeavenError
from leaven.learners.direct.proof import Answers, DirectForm
from leaven.training.encoding import Matrix

_HOW = (
    b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, "missing": NaN,'
    b' "strict_shape": false, "cache_id": 0}'
)
_ARRAY = b'{"data": [%d, true], "shape": [%d, %d], "typestr": "<f8", "version": 3}'
_LARGEST = float(np.finfo(np.float32).max)
_NAMES = ("libxgboost.so", "libxgboost.dylib", "xgboost.dll")


class XGBoostRefused(LeavenError, RuntimeError):
    """XGBoost's library refused what it was given; the text is its own."""

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.said = said

    def __str__(self) -> str:
        lines = [line.strip() for line in self.said.splitlines()]
        return next((line for line in lines if line), "XGBoost does not say why")


@cache
def library() -> ctypes.CDLL | None:
    """Return XGBoost's library, or None if it is not where its package keeps it."""
    spec = find_spec("xgboost")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for file in (Path(folder) / "lib" / name for name in _NAMES):
            if file.is_file():
                return _typed(ctypes.CDLL(str(file)))
    return None


def _typed(found: ctypes.CDLL) -> ctypes.CDLL:
    """Say what the functions take, so that a mistake here is an error and not a crash."""
    handle, text, count, to = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_void_p)
    answers = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(count), ctypes.POINTER(ctypes.POINTER(ctypes.c_float))]
    found.XGBGetLastError.restype = text
    for name, takes in {
        "XGBoosterCreate": [handle, count, to],
        "XGBoosterFree": [handle],
        "XGBoosterSetParam": [handle, text, text],
        "XGBoosterGetNumFeature": [handle, ctypes.POINTER(count)],
        "XGBoosterLoadModelFromBuffer": [handle, handle, count],
        "XGBoosterPredictFromDense": [handle, text, text, handle, *answers],
        "XGBoosterPredictFromDMatrix": [handle, handle, text, *answers],
        "XGDMatrixCreateFromDense": [text, text, to],
        "XGDMatrixFree": [handle],
    }.items():
        function = getattr(found, name)
        function.argtypes, function.restype = takes, ctypes.c_int
    return found


class NativeBooster:
    """A booster that is asked by XGBoost's C interface; prediction is read-only, so threads may share it."""

    def __init__(self, found: ctypes.CDLL, stored: bytes | memoryview) -> None:
        """Read a stored model from where it is: it is not copied.

        Raises:
            XGBoostRefused: it cannot be read.
        """
        self._xgboost = found
        self._handle = ctypes.c_void_p()
        self._check(found.XGBoosterCreate(None, 0, ctypes.byref(self._handle)))
        finalize(self, found.XGBoosterFree, self._handle)
        # One thread per call: a gateway answers many requests side by side.
        self._check(found.XGBoosterSetParam(self._handle, b"nthread", b"1"))
        place = np.frombuffer(stored, np.uint8)
        self._check(found.XGBoosterLoadModelFromBuffer(self._handle, _address(place), len(place)))
        width = ctypes.c_uint64()
        self._check(found.XGBoosterGetNumFeature(self._handle, ctypes.byref(width)))
        self._width = width.value

    def predict(self, matrix: Matrix) -> Answers:
        """Return one answer per row, shape (rows,), by a matrix of XGBoost's own.

        Raises:
            XGBoostRefused: the rows are not of the model's width.
        """
        if not len(matrix):
            return np.empty(0)
        if matrix.shape[1] != self._width:
            raise XGBoostRefused(f"rows of {matrix.shape[1]} features, while the model takes {self._width}")
        # Its own kind of matrix refuses what is too large for it; a tree reads that as the largest number there is.
        rows, described = _described(np.clip(matrix, -_LARGEST, _LARGEST))
        own = ctypes.c_void_p()
        self._check(
            self._xgboost.XGDMatrixCreateFromDense(described, b'{"missing": NaN, "nthread": 1}', ctypes.byref(own))
        )
        try:
            return self._answered(rows, self._xgboost.XGBoosterPredictFromDMatrix, own, _HOW)
        finally:
            self._xgboost.XGDMatrixFree(own)

    def form(self) -> DirectForm:
        """Return the direct form: the same answers to the last bit, from the matrix where it is."""
        return DirectForm(self._in_place, tolerance=0.0)

    def _in_place(self, matrix: Matrix) -> Answers:
        rows, described = _described(matrix)
        return self._answered(rows, self._xgboost.XGBoosterPredictFromDense, described, _HOW, None)

    def _answered(self, rows: Matrix, ask: Callable[..., int], *given: Any) -> Answers:
        shape, dims, found = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.POINTER(ctypes.c_float)()
        self._check(ask(self._handle, *given, ctypes.byref(shape), ctypes.byref(dims), ctypes.byref(found)))
        if dims.value != 1:
            raise XGBoostRefused(f"answers of {dims.value} dimensions, not one per row")
        # The memory is the calling thread's, until its next call: so it is copied, and becomes what Leaven answers in.
        place = memoryview((ctypes.c_float * len(rows)).from_address(ctypes.addressof(found.contents)))
        answers: Answers = np.frombuffer(place, np.float32).astype(np.float64)
        return answers

    def _check(self, failed: int) -> None:
        if failed:
            raise XGBoostRefused(self._xgboost.XGBGetLastError().decode(errors="replace"))


def _described(matrix: Matrix) -> tuple[Matrix, bytes]:
    """The matrix as it lies in memory, which must live as long as it is used, and how XGBoost is told of it."""
    rows = np.ascontiguousarray(matrix, dtype=np.float64)
    return rows, _ARRAY % (_address(rows), *rows.shape)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])

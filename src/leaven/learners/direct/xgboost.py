"""What is the direct form of a booster of XGBoost?

The same call of XGBoost's C interface that `Booster.inplace_predict` ends in. That method first asks of which library
its argument is, and writes and reads descriptions of arrays that are always alike here.

Source: https://xgboost.readthedocs.io/en/stable/c.html, XGBoosterPredictFromDense, XGBoosterLoadModelFromBuffer.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from leaven.learners.direct.proof import Answers, DirectForm
from leaven.training.encoding import Matrix

_HOW = (
    b'{"type": 0, "training": false, "iteration_begin": 0, "iteration_end": 0, "missing": NaN,'
    b' "strict_shape": false, "cache_id": 0}'
)
_ARRAY = b'{"data": [%d, true], "shape": [%d, %d], "typestr": "<f8", "version": 3}'
_Floats = ctypes.POINTER(ctypes.c_float)


def direct_form(booster: Any) -> DirectForm:
    """Return the direct form of a loaded booster; its answers are the library's to the last bit."""
    ask = _functions().XGBoosterPredictFromDense
    ask.restype = ctypes.c_int
    handle, nothing = booster.handle, ctypes.c_void_p()

    def answer(matrix: Matrix) -> Answers:
        matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        rows, width = matrix.shape
        shape, dims, found = ctypes.c_void_p(), ctypes.c_uint64(), _Floats()
        described = _ARRAY % (matrix.__array_interface__["data"][0], rows, width)
        failed = ask(handle, described, _HOW, nothing, ctypes.byref(shape), ctypes.byref(dims), ctypes.byref(found))
        if failed or dims.value != 1:
            return np.full(rows, np.nan)  # the library says why
        answers: Answers = np.empty(rows)
        # The memory is the calling thread's, until its next call.
        answers[:] = np.frombuffer((ctypes.c_float * rows).from_address(ctypes.addressof(found.contents)), np.float32)
        return answers

    # The booster must live as long as its handle is used.
    answer.booster = booster  # type: ignore[attr-defined]
    return DirectForm(answer, tolerance=0.0)


def read_in_place(booster: Any, stored: bytes | memoryview) -> bool:
    """Let a new booster read a stored model from where it is; False where it cannot be read so.

    `Booster.load_model` wants a `bytearray`: a copy of the whole, while the booster's own trees are made of it.
    """
    load = _functions().XGBoosterLoadModelFromBuffer
    load.argtypes, load.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64), ctypes.c_int
    place = np.frombuffer(stored, np.uint8)
    return bool(len(place)) and load(booster.handle, place.__array_interface__["data"][0], len(place)) == 0


def _functions() -> ctypes.CDLL:
    from xgboost.libpath import find_lib_path

    # Opened anew, which gives the same library but functions of our own: nobody else sees their types.
    return ctypes.CDLL(find_lib_path()[0])

"""Answers of simple models computed directly, without their library's own overhead, where that is proven to be equal.

A library checks and converts what it is given anew with every call, which for one row costs many times the arithmetic.
"""

from leaven.learners.direct.proof import DirectForm, DirectModel, NoDirectForm, prefer_direct

__all__ = ["DirectForm", "DirectModel", "NoDirectForm", "prefer_direct"]

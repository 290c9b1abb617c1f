"""How does an XGBoost model get more columns without being trained?

Its JSON says how many features there are, what they are called, and by which number a split names one. Where the
version of that text is one that was tested, the numbers and names are changed in it. Elsewhere the parent stays whole
beside a new, empty model, which takes all columns and starts from the parent's margin (`base_margin`).

Source: "Introduction to Model IO", XGBoost documentation, for the JSON; the change itself is ours, and is proven on
rows whenever it is made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.learners.formats import ModelDamaged
from leaven.training.encoding import Matrix
from leaven.training.learner import CannotLearn, Files

TESTED = (
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 4),
)  # versions of the library whose text was changed and loaded again in our tests
BASE_FILE, BASE_SHEET = "base.ubj", "base.json"


class UnknownText(CannotLearn):
    """A model's text is not one of those that we know how to change."""

    def __init__(self, what: str) -> None:
        super().__init__("XGBoost", what, "Fit a version from scratch instead.")


@dataclass(frozen=True, slots=True)
class Columns:
    """What a model is to take: its columns, and where those that it takes already stand among them."""

    names: Sequence[str]
    kinds: Sequence[str]
    places: Sequence[int]


@dataclass(frozen=True, slots=True)
class Base:
    """The parent that a model starts from, whole, and which of the model's columns the parent takes."""

    booster: Any
    places: tuple[int, ...]

    def margin(self, matrix: Matrix) -> NDArray[np.float32]:
        """Return what the parent says of each row before it becomes a probability, shape (rows,)."""
        own = np.ascontiguousarray(matrix[:, list(self.places)])
        said: NDArray[np.float32] = self.booster.inplace_predict(own, predict_type="margin", validate_features=False)
        return said


def with_columns(stored: bytes, columns: Columns) -> bytes:
    """Return a model's JSON with the columns changed; nothing else in it is.

    Args:
        stored: The model as `save_raw("json")` gives it.
        columns: What it is to take.

    Raises:
        UnknownText: it was written by a version that was not tested, or does not look as those write.
    """
    model = json.loads(stored)
    version = tuple(model.get("version", ()))[:2]
    if version not in TESTED:
        raise UnknownText(f"the model's text is of XGBoost {'.'.join(map(str, version))}, which was not tested")
    try:
        _change(model["learner"], columns)
    except (KeyError, IndexError, TypeError) as error:
        raise UnknownText(f"the model's text is not as expected ({type(error).__name__}: {error})") from error
    return json.dumps(model).encode()


def _change(learner: dict[str, Any], columns: Columns) -> None:
    count = str(len(columns.names))
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree" or booster["model"].get("cats", {}).get("enc"):
        raise UnknownText("the model has other boosters than plain trees, or categories of its own")
    learner["feature_names"], learner["feature_types"] = list(columns.names), list(columns.kinds)
    learner["learner_model_param"]["num_feature"] = count
    for tree in booster["model"]["trees"]:
        tree["tree_param"]["num_feature"] = count
        tree["split_indices"] = [columns.places[index] for index in tree["split_indices"]]


def base_files(stored: bytes | memoryview, places: Sequence[int]) -> dict[str, bytes]:
    """Return the files in which a parent is kept beside the model that starts from it."""
    return {BASE_FILE: bytes(stored), BASE_SHEET: msgspec.json.encode(list(places))}


def kept_base(files: Files) -> Mapping[str, bytes | memoryview]:
    """Return the files of `base_files` that are among `files`, or none."""
    return {name: files[name] for name in (BASE_FILE, BASE_SHEET) if name in files}


def base_in(files: Files) -> Base | None:
    """Return the parent that the model in `files` starts from, or None for a model that stands alone.

    Raises:
        ModelDamaged: only half of it is there, or it cannot be read.
    """
    if not kept_base(files):
        return None
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    try:
        places = msgspec.json.decode(files[BASE_SHEET], type=tuple[int, ...])
        booster.load_model(bytearray(files[BASE_FILE] or b"\0"))  # of nothing at all, XGBoost ends the process
    except (KeyError, msgspec.DecodeError, xgboost.core.XGBoostError) as error:
        raise ModelDamaged("xgboost-ubj", f"{BASE_FILE}: {str(error).splitlines()[0]}") from error
    return Base(booster, places)

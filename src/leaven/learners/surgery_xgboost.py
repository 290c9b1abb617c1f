"""How does an XGBoost model get more columns without being trained?

Its JSON says how many features there are, what they are called, and by which number a split names one. Where the
version of that text is one that was tested, the numbers and names are changed in it; elsewhere nothing is.

Source: "Introduction to Model IO", XGBoost documentation, for the JSON; the change itself is ours, and is proven on
rows whenever it is made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaven.training.surgery import UnknownText

TESTED = (
    (3, 1),
    (3, 2),
    (3, 3),
    (3, 4),
)  # versions of the library whose text was changed and loaded again in our tests


@dataclass(frozen=True, slots=True)
class Columns:
    """What a model is to take: its columns, and where those that it takes already stand among them."""

    names: Sequence[str]
    kinds: Sequence[str]
    places: Sequence[int]


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
        raise UnknownText(
            "XGBoost", f"the model's text is of XGBoost {'.'.join(map(str, version))}, which was not tested"
        )
    try:
        _change(model["learner"], columns)
    except (KeyError, IndexError, TypeError) as error:
        raise UnknownText(
            "XGBoost", f"the model's text is not as expected ({type(error).__name__}: {error})"
        ) from error
    return json.dumps(model).encode()


def _change(learner: dict[str, Any], columns: Columns) -> None:
    count = str(len(columns.names))
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree" or booster["model"].get("cats", {}).get("enc"):
        raise UnknownText("XGBoost", "the model has other boosters than plain trees, or categories of its own")
    learner["feature_names"], learner["feature_types"] = list(columns.names), list(columns.kinds)
    learner["learner_model_param"]["num_feature"] = count
    for tree in booster["model"]["trees"]:
        tree["tree_param"]["num_feature"] = count
        tree["split_indices"] = [columns.places[index] for index in tree["split_indices"]]

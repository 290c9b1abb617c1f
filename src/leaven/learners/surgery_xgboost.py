"""How does an XGBoost model get more columns, or more classes, without being trained?

Its JSON says how many features there are, what they are called, and by which number a split names one. Where the
version of that text is one that was tested, the numbers and names are changed in it; elsewhere nothing is.

Source: "Introduction to Model IO", XGBoost documentation, for the JSON; the change itself is ours, and is proven on
rows whenever it is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    return _changed(stored, lambda learner: _change(learner, columns))


def with_classes(stored: bytes, count: int, *, start: float) -> bytes:
    """Return a model's JSON with `count` classes behind those that it has: a tree of one leaf, 0, in every round.

    Args:
        stored: The model as `save_raw("json")` gives it.
        count: How many classes come.
        start: Their margin before any tree.

    Raises:
        UnknownText: as `with_columns`.
    """
    return _changed(stored, lambda learner: _add_classes(learner, count, start))


def _changed(stored: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    model = json.loads(stored)
    version = tuple(model.get("version", ()))[:2]
    if version not in TESTED:
        raise UnknownText(
            "XGBoost", f"the model's text is of XGBoost {'.'.join(map(str, version))}, which was not tested"
        )
    try:
        change(model["learner"])
    except (KeyError, IndexError, TypeError) as error:
        raise UnknownText(
            "XGBoost", f"the model's text is not as expected ({type(error).__name__}: {error})"
        ) from error
    return json.dumps(model).encode()


def _add_classes(learner: dict[str, Any], count: int, start: float) -> None:
    settings, model = learner["learner_model_param"], learner["gradient_booster"]["model"]
    classes, ends = int(settings["num_class"]), model["iteration_indptr"]
    if learner["objective"]["name"] != "multi:softprob" or model["gbtree_model_param"]["num_parallel_tree"] != "1":
        raise UnknownText("XGBoost", "the model has another objective than multi:softprob, or forests for trees")
    if not settings["base_score"].startswith("["):
        raise UnknownText("XGBoost", "the model has one margin for all classes to start from")
    settings["base_score"] = json.dumps([*json.loads(settings["base_score"]), *[start] * count])
    settings["num_class"] = learner["objective"]["softmax_multiclass_param"]["num_class"] = str(classes + count)
    trees: list[Any] = []
    for first, last in pairwise(ends):
        trees += model["trees"][first:last]
        trees += [_leaf(settings["num_feature"]) for _ in range(count)]
    for number, tree in enumerate(trees):
        tree["id"] = number
    rounds = len(ends) - 1
    model["trees"], model["tree_info"] = trees, list(range(classes + count)) * rounds
    model["iteration_indptr"] = [(classes + count) * number for number in range(rounds + 1)]
    model["gbtree_model_param"]["num_trees"] = str(len(trees))


def _leaf(features: str) -> dict[str, Any]:
    """A tree of one leaf that adds nothing."""
    node: dict[str, Any] = {name: [0.0] for name in ("base_weights", "loss_changes", "split_conditions", "sum_hessian")}
    node |= {name: [0] for name in ("default_left", "split_indices", "split_type")}
    node |= {name: [] for name in ("categories", "categories_nodes", "categories_segments", "categories_sizes")}
    param = {"num_deleted": "0", "num_feature": features, "num_nodes": "1", "size_leaf_vector": "1"}
    return {**node, "left_children": [-1], "right_children": [-1], "parents": [2147483647], "id": 0,
            "tree_param": param}  # fmt: skip


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

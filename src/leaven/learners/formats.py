"""Which module reads a model's files?"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module

from leaven.errors import LeavenError
from leaven.training.learner import Files, Model, TextModel

FORMATS = {  # format -> module with a `load_model(files, trusted=…)`; imported only when a model of it is loaded
    "xgboost-ubj": "leaven.learners.xgboost",
    "lightgbm-text": "leaven.learners.lightgbm",
    "als-npz": "leaven.learners.als",
    "skops": "leaven.learners.scikit_learn",
    "python": "leaven.learners.function",
    "river-skops": "leaven.learners.river",
    "river-pickle": "leaven.learners.river",
    "torch-npz": "leaven.learners.torch.serving",
    "embedded": "leaven.learners.embedded",
}


class UnknownFormat(LeavenError, LookupError):
    """A model is stored in a format that this version of Leaven cannot read."""

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.given = given

    def __str__(self) -> str:
        return f"no model can be loaded from format {self.given!r}. This Leaven reads {', '.join(FORMATS)}; upgrade it."


class ModelDamaged(LeavenError, ValueError):
    """A model's files are not what its format says they are."""

    def __init__(self, given: str, why: str) -> None:
        super().__init__(given, why)
        self.given, self.why = given, why

    def __str__(self) -> str:
        return f"the model's files ({self.given}) cannot be read: {self.why}. Roll back, or train the version again."


def load(format: str, files: Files, *, trusted: Collection[str] = ()) -> Model | TextModel:
    """Return the model that `files` hold; the library of the format is imported only now.

    Args:
        format: The learner's `format` when the files were made.
        files: What `fit` or `update` returned.
        trusted: Full names of types outside scikit-learn, NumPy and SciPy that a model may be made of.

    Raises:
        UnknownFormat: this Leaven has no reader for the format.
        ModelDamaged: the files are incomplete or unreadable.
        leaven.learners.scikit_learn_storage.UntrustedTypes: the model is made of types that were not named.
        BadDefinition: the library that the format needs is not installed.
    """
    if format not in FORMATS:
        raise UnknownFormat(format)
    model: Model | TextModel = import_module(FORMATS[format]).load_model(files, trusted=trusted)
    return model

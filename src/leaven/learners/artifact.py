"""What is kept of a model version, and how does it answer again?"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.learners.direct.proof import DirectModel
from leaven.learners.formats import ModelDamaged, load
from leaven.training.encoding import Encoder
from leaven.training.learner import Files, Model, TextModel, answers_of

MANIFEST = "manifest.json"
_FOLDER = "model/"
_LAYOUT = 1


class _Manifest(msgspec.Struct, frozen=True):
    layout: int
    format: str
    learner: str
    encoder: Encoder
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """Everything that is needed to answer with a version: the model's files and how features become its matrix.

    `learner` is the learner as written in the loop file; `libraries` are the versions that fitted the model.
    """

    format: str
    encoder: Encoder
    learner: str
    files: Files
    libraries: Mapping[str, str] = field(default_factory=dict)

    def to_files(self) -> dict[str, bytes | memoryview]:
        """Return a manifest, and the model's own files below `model/`; equal artifacts give equal bytes."""
        manifest = _Manifest(_LAYOUT, self.format, self.learner, self.encoder, dict(self.libraries))
        stored: dict[str, bytes | memoryview] = {MANIFEST: msgspec.json.encode(manifest, order="deterministic")}
        return stored | {f"{_FOLDER}{name}": content for name, content in self.files.items()}

    @classmethod
    def from_files(cls, files: Files) -> ModelArtifact:
        """Return the artifact that `to_files` wrote.

        Raises:
            ModelDamaged: there is no manifest, or it is not one that this Leaven can read.
        """
        if MANIFEST not in files:
            raise ModelDamaged("artifact", f"there is no {MANIFEST}")
        try:
            manifest = msgspec.json.decode(files[MANIFEST], type=_Manifest)
        except msgspec.DecodeError as error:
            raise ModelDamaged("artifact", f"{MANIFEST}: {error}") from error
        if manifest.layout != _LAYOUT:
            raise ModelDamaged("artifact", f"layout {manifest.layout}, while this Leaven reads layout {_LAYOUT}")
        own = {name.removeprefix(_FOLDER): content for name, content in files.items() if name.startswith(_FOLDER)}
        return cls(manifest.format, manifest.encoder, manifest.learner, own, manifest.libraries)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded version; safe to ask from several threads."""

    encoder: Encoder
    model: Model | TextModel

    @property
    def path(self) -> Literal["direct", "library"]:
        """Who answers: the direct form, as far as it goes, or the library that fitted the model."""
        return "direct" if isinstance(self.model, DirectModel) else "library"

    def answer(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return one answer per row, shape (rows,): the probability of class 1, or the value; of several classes the
        probability of each, shape (rows, classes).

        Args:
            columns: Arrays of one length by feature name, as `Encoder.encode` takes them.
        """
        matrix, encoder = self.encoder.encode(columns), self.encoder
        return answers_of(self.model, matrix, encoder.texts(columns) if encoder.reads_text else {})


def load_artifact(files: Files, *, trusted: Collection[str] = ()) -> ServedModel:
    """Return the version that an artifact's `files` hold, ready to answer.

    Raises:
        ModelDamaged: the artifact is incomplete or unreadable.
        UnknownFormat: the model's format has no reader here.
        leaven.learners.scikit_learn_storage.UntrustedTypes: the model is made of types that are not in `trusted`.
    """
    artifact = ModelArtifact.from_files(files)
    return ServedModel(artifact.encoder, load(artifact.format, artifact.files, trusted=trusted))

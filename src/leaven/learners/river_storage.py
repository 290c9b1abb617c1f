"""How are River's models kept, which are Python objects and have no format of their own?

Linear models, scalers and the pipelines of them are written by skops: types by name, each of which must be known
before anything is made. skops cannot hold trees, forests and the like; for these there is only pickle, and a pickle is
a program. It is used where the owner names `"river-pickle"`, when the model is made and wherever it is loaded, and even
then it may name nothing but River's own classes, plain containers, and what else the owner names.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Collection
from typing import Any

from leaven.errors import LeavenError
from leaven.learners.formats import ModelDamaged
from leaven.training.learner import CannotLearn, Files

SAFE, PICKLE = "river-skops", "river-pickle"
_MODEL_FILES = {SAFE: "model.skops", PICKLE: "model.pickle"}

# What River's linear models are made of. They hold numbers; anything else must be named by the owner.
KNOWN_TYPES = frozenset(
    {
        "builtins.frozenset",
        "collections.Counter",
        "river._river_rust.vectordict.VectorDict",
        "river.compose.pipeline.Pipeline",
        "river.compose.select.SelectType",
        "river.compose.union.TransformerUnion",
        "river.linear_model.alma.ALMAClassifier",
        "river.linear_model.bayesian_lin_reg.BayesianLinearRegression",
        "river.linear_model.lin_reg.LinearRegression",
        "river.linear_model.log_reg.LogisticRegression",
        "river.linear_model.perceptron.Perceptron",
        "river.multiclass.ovr.OneVsRestClassifier",
        "river.naive_bayes.bernoulli.BernoulliNB",
        "river.optim.ada_grad.AdaGrad",
        "river.optim.adam.Adam",
        "river.optim.ftrl.FTRLProximal",
        "river.optim.initializers.Zeros",
        "river.optim.losses.Hinge",
        "river.optim.losses.Huber",
        "river.optim.losses.Log",
        "river.optim.losses.Squared",
        "river.optim.momentum.Momentum",
        "river.optim.rms_prop.RMSProp",
        "river.optim.schedulers.Constant",
        "river.optim.schedulers.InverseScaling",
        "river.optim.sgd.SGD",
        "river.preprocessing.one_hot.OneHotEncoder",
        "river.preprocessing.scale.MinMaxScaler",
        "river.preprocessing.scale.StandardScaler",
        "river.stats.maximum.Max",
        "river.stats.minimum.Min",
    }
)

_BUILTINS = ("bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "str", "tuple")
_COLLECTIONS = ("Counter", "OrderedDict", "defaultdict", "deque")

# What a pickle may name beside River's own classes: containers, numbers, a state of chance; no `getattr`, no `eval`.
_PLAIN = frozenset(
    {
        *(f"builtins.{name}" for name in _BUILTINS),
        *(f"collections.{name}" for name in _COLLECTIONS),
        "functools.partial",  # around what may be named here
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
        "random.Random",
    }
)


class UntrustedModel(LeavenError, ValueError):
    """A stored model of River is made of what nobody named as safe to load."""

    def __init__(self, names: Collection[str]) -> None:
        super().__init__(sorted(names))
        self.names = sorted(names)

    def __str__(self) -> str:
        if self.names == [PICKLE]:
            return (
                "the model is a pickle, and nobody allowed that. If it is yours, name "
                f'"{PICKLE}" wherever it is loaded (LEAVEN_TRUSTED_TYPES={PICKLE}).'
            )
        return (
            f"the model is made of {', '.join(self.names)}, which nobody named as safe to load. If the code is yours, "
            "name each in River(…, trusted=[…]) and wherever the model is loaded."
        )


def stored(model: Any, *, format: str, trusted: Collection[str]) -> dict[str, bytes]:
    """Return the model's file.

    Raises:
        CannotLearn: it is of a kind that this format cannot hold.
        UntrustedModel: it is made of what is not in `trusted`.
    """
    if format == PICKLE:
        content = _pickled(model)
        _unpickled(content, trusted)  # better refused now than when it is to serve
        return {_MODEL_FILES[PICKLE]: content}
    try:
        content = _dumped(model)
    except Exception as error:  # skops stumbles in many ways over what it cannot hold
        why = f"skops cannot hold {type(model).__name__}, and there is only pickle beside it"
        mend = f'Allow that by name: River(…, trusted=["{PICKLE}"]), and LEAVEN_TRUSTED_TYPES={PICKLE} where it serves.'
        raise CannotLearn("River", why, mend) from error
    refused = _strange(content, trusted)
    if refused:
        raise UntrustedModel(refused)
    return {_MODEL_FILES[SAFE]: content}


def restored(files: Files, *, format: str, trusted: Collection[str]) -> Any:
    """Return the model in `files`.

    Raises:
        UntrustedModel: it is a pickle that nobody allowed, or made of what is not in `trusted`; nothing of it was made.
        ModelDamaged: the file is missing or unreadable.
    """
    name = _MODEL_FILES[format]
    if format == PICKLE and PICKLE not in trusted:
        raise UntrustedModel([PICKLE])
    if name not in files:
        raise ModelDamaged(format, f"there is no {name}")
    content = bytes(files[name])
    if format == PICKLE:
        return _unpickled(content, trusted)
    refused = _strange(content, trusted)
    if refused:
        raise UntrustedModel(refused)
    return _loaded(content, trusted)


def _dumped(model: Any) -> bytes:
    import skops.io

    content: bytes = skops.io.dumps(model)
    # What skops writes it cannot always read (a dictionary of classes in a tree, say), so it is read at once.
    skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))
    return content


def _strange(content: bytes, trusted: Collection[str]) -> set[str]:
    import skops.io

    try:
        found = skops.io.get_untrusted_types(data=content)
    except Exception as error:  # zip, JSON and key errors of a damaged archive come as they are
        raise ModelDamaged(SAFE, f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")) from error
    return set(found) - KNOWN_TYPES - set(trusted)


def _loaded(content: bytes, trusted: Collection[str]) -> Any:
    import skops.io

    return skops.io.loads(content, trusted=sorted({*KNOWN_TYPES, *trusted}))


def _pickled(model: Any) -> bytes:
    try:
        return pickle.dumps(model, protocol=5)
    except Exception as error:  # a lambda, an open file, …: each type fails in its own way
        why = f"{type(model).__name__} cannot be stored ({error})".rstrip(".")
        raise CannotLearn("River", why, "Leave out what cannot be pickled, such as a lambda.") from error


def _unpickled(content: bytes, trusted: Collection[str]) -> Any:
    try:
        return _Careful(content, trusted).load()
    except UntrustedModel:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise ModelDamaged(PICKLE, f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")) from error


class _Careful(pickle.Unpickler):
    """Reads a pickle, and makes nothing whose name it was not given."""

    def __init__(self, content: bytes, trusted: Collection[str]) -> None:
        super().__init__(io.BytesIO(content))
        self._named = _PLAIN | set(trusted)

    def find_class(self, module: str, name: str) -> Any:
        """Return the class of that name if it may be named."""
        full = f"{module}.{name}"
        ours = module.split(".")[0] == "river" and "." not in name  # a dotted name could lead out of River
        if not ours and full not in self._named:
            raise UntrustedModel([full])
        found = super().find_class(module, name)
        if ours and full not in self._named and not _of_river(found):
            raise UntrustedModel([full])
        return found


def _of_river(found: Any) -> bool:
    """Whether it is a class of River's own, and not what one of its modules imports."""
    where = str(getattr(found, "__module__", None) or "").split(".")[0]
    return isinstance(found, type) and where == "river"

"""Are the settings of a network ones that it can mean?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaven.errors import BadDefinition
from leaven.learners.bounds import check_choice, check_count, check_share, check_weight
from leaven.learners.torch.network import ACTIVATIONS

_COUNTS = {"embedding": 1, "epochs": 1, "update_epochs": 1, "batch_size": 1, "warmup": 0, "threads": 1}
_CHOICES = {"optimizer": ("adamw", "sgd"), "schedule": ("constant", "cosine"), "activation": tuple(ACTIVATIONS)}


def check_settings(given: Any) -> None:
    """Refuse a `Torch` that could not be trained as it says.

    Raises:
        BadDefinition: a setting is out of its range, or two of them contradict each other.
    """
    for name, least in _COUNTS.items():
        check_count(_where(name), getattr(given, name), least=least)
    for name, choices in _CHOICES.items():
        check_choice(_where(name), getattr(given, name), choices)
    if not isinstance(given.hidden, Sequence) or isinstance(given.hidden, str):
        raise BadDefinition(_where("hidden"), f"{given.hidden!r} is no list of layers", "Write it as [64, 32].")
    for units in given.hidden:
        check_count(_where("hidden"), units, least=1)
    if given.module is not None and not isinstance(given.module, str):
        raise BadDefinition(_where("module"), f"{given.module!r} is no function", 'Write it as "module:function".')
    check_share(_where("learning_rate"), given.learning_rate)
    if given.update_learning_rate is not None:
        check_share(_where("update_learning_rate"), given.update_learning_rate)
    check_weight(_where("weight_decay"), given.weight_decay)
    check_share(_where("dropout"), given.dropout, zero=True)
    if given.dropout == 1:
        raise BadDefinition(_where("dropout"), "1 leaves nothing to learn with", "Use a number from 0 to below 1.")
    _check_ties(given)


def _check_ties(given: Any) -> None:
    if given.ewc is not None:
        check_weight(_where("ewc"), given.ewc)
    if given.lwf is not None:
        _check_pair("lwf", given.lwf, "a weight and a temperature, as [1.0, 2.0]")
        check_weight(_where("lwf"), given.lwf[0])
        check_weight(_where("lwf"), given.lwf[1])
        if given.lwf[1] < 1:
            raise BadDefinition(_where("lwf"), f"the temperature is {given.lwf[1]!r}", "Use 1 or more.")
    if given.shrink is not None:
        _check_pair("shrink", given.shrink, "a share to keep and a noise, as [0.5, 0.01]")
        check_share(_where("shrink"), given.shrink[0])
        check_weight(_where("shrink"), given.shrink[1])
        if given.ewc is not None:
            what = "it moves the parameters that ewc holds"
            raise BadDefinition(_where("shrink"), what, "Keep one of the two, or use lwf with shrink.")


def _check_pair(name: str, given: object, mend: str) -> None:
    if not isinstance(given, tuple) or len(given) != 2:
        raise BadDefinition(_where(name), f"{given!r} is no pair", f"Give {mend}.")


def _where(name: str) -> str:
    return f"Torch({name}=…)"

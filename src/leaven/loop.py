"""What does an owner write down about a model that is to be kept fresh?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, fields
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import msgspec

from leaven.duration import duration
from leaven.errors import BadDefinition
from leaven.events.labels import LabelRule, Task
from leaven.values import value

if TYPE_CHECKING:
    from leaven.curation.windows import Data, Part
    from leaven.experiments.stage import Stage
    from leaven.gates import Gate
    from leaven.training.learner import Learner
    from leaven.training.plans import Choice, Plan, PlanHistory
    from leaven.triggers import Trigger

FeatureType = Literal["category", "float", "int", "bool", "text"]
PARAMETERS = "parameters"  # the format of versions that people write; what all versions of such a loop are
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_FEATURE_TYPES = ("category", "float", "int", "bool", "text")


@value
class Feature:
    """One named input of the model.

    Args:
        name: As requests call it.
        type: `category`, `float`, `int` or `bool`; or `text`, whose words a learner reads (see `reads_text`).
        required: A request without it is refused. One that is not required may be absent or null; the model then sees
            `default`, or that it is missing.
        default: What stands in where the value is missing.
        values: The categories there are; any, if none are named. Another one counts as unfitting.
        invalid: What becomes of a request with a value that does not fit: `refuse` it with a message that names the
            feature, or let the `default` (or missing) stand in.
    """

    name: str
    type: FeatureType
    _: KW_ONLY
    required: bool = False
    default: str | float | int | bool | None = None
    values: Sequence[str] = ()
    invalid: Literal["refuse", "default"] = "refuse"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or "\0" in self.name:
            raise BadDefinition("Feature(name)", f"{self.name!r} is no name", "Name the feature with some text.")
        if self.type not in _FEATURE_TYPES:
            raise BadDefinition(
                f"Feature({self.name!r})", f"there is no type {self.type!r}", f"Use one of {', '.join(_FEATURE_TYPES)}."
            )
        if isinstance(self.values, list):
            object.__setattr__(self, "values", tuple(self.values))
        self._check_rule()

    def _check_rule(self) -> None:
        where = f"Feature({self.name!r})"
        if self.invalid not in ("refuse", "default"):
            raise BadDefinition(where, f"invalid={self.invalid!r} is no way out", 'Use "refuse" or "default".')
        if self.values and (self.type != "category" or not all(isinstance(each, str) for each in self.values)):
            raise BadDefinition(where, "values= lists the names of categories", "Leave it out, or list texts.")
        if self.default is None:
            return
        if self.required:
            raise BadDefinition(where, "it is required and has a default", "Keep one of the two.")
        if not isinstance(self.default, _DEFAULT_TYPES[self.type]) or (
            isinstance(self.default, bool) and self.type != "bool"
        ):
            raise BadDefinition(where, f"default={self.default!r} is no {self.type}", f"Give a {self.type}.")
        if self.values and self.default not in self.values:
            raise BadDefinition(where, f"default={self.default!r} is none of values=", "Add it there.")

    @property
    def rule(self) -> FeatureRule | None:
        """What the gateway does with its values beyond their type, if that is anything."""
        if self.default is None and not self.values and self.invalid == "refuse":
            return None
        return FeatureRule(self.default, tuple(self.values), self.invalid)


_DEFAULT_TYPES: dict[str, type | tuple[type, ...]] = {
    "category": str,
    "text": str,
    "float": (int, float),
    "int": int,
    "bool": bool,
}


class FeatureRule(msgspec.Struct, frozen=True):
    """What becomes of a feature's missing, unknown and unfitting values in a request."""

    default: str | float | int | bool | None = None
    values: tuple[str, ...] = ()
    invalid: Literal["refuse", "default"] = "refuse"


class Schema(msgspec.Struct, frozen=True):
    """What a gateway must know of a loop to take requests: the inputs by name and type, the unit, the kind of answer.

    It travels in the routing table, so a gateway never runs the owner's file.
    """

    features: tuple[tuple[str, FeatureType, bool], ...]  # name, type, required
    unit: str
    task: Task
    rules: dict[str, FeatureRule] = {}
    classes: tuple[str, ...] = ()  # of a multiclass task, in the order of their labels

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order of the model's inputs."""
        return tuple(name for name, _, _ in self.features)


@value
class Nothing:
    """No examples, and no plan: of a loop in which nothing is trained."""

    def parts(self, *, until: datetime, first: datetime) -> Sequence[Part]:
        """Return no stretches."""
        return ()

    def choose(self, history: PlanHistory) -> Choice:
        """Return `fit`; nobody asks."""
        from leaven.training.plans import Choice

        return Choice("fit", "nothing is trained")


NOTHING = Nothing()


@value
class Loop:
    """One model's continual-learning loop, whole; or, with the learner `Parameters()`, that of a set of parameters.

    Args:
        name: Lower-case letters, digits, `-` and `_`; it names the model on the wire.
        features: Inputs, in the order in which the model takes them. Of parameters: what may be told of a unit when its
            arm is asked for; there may be none.
        unit: Whom assignment is consistent for: the request parameter, or the feature, that names the unit.
        label: How feedback becomes the outcome that the model is judged by.
        learner: How a model is fitted or updated.
        data: Which examples a refresh trains on; left out where nothing is trained.
        plan: From scratch each time, from the champion onwards, or mostly onwards; left out where nothing is trained.
        triggers: Any of these starts a refresh. Without any, a plan that says how often (`Hybrid(update="1d")`) stands
            for `Every("1d")`.
        gates: All of these must pass before a challenger meets traffic, in order.
        rollout: Stages that a challenger goes through in production, in order; none means promotion after the gates.
        holdout: The newest stretch of mature examples, kept from training and used to judge.
        tick: How often the controller looks.
        seed: Seed of sampling and of learners.
        outcome_depends_on_prediction: Whether what is reported depends on what was answered, as a click depends on what
            was shown. Where it does not (whether a flight is late, what a house is sold for), say False: then a shadow
            that `decides` may promote by itself.

    Raises:
        BadDefinition: a value is not one that Leaven can run.
    """

    name: str
    _: KW_ONLY
    features: Sequence[Feature] = ()
    unit: str
    label: LabelRule
    learner: Learner
    data: Data = NOTHING
    plan: Plan = NOTHING
    triggers: Sequence[Trigger] = ()
    gates: Sequence[Gate] = ()
    rollout: Sequence[Stage] = ()
    holdout: str = "2d"
    tick: str = "1h"
    seed: int = 0
    outcome_depends_on_prediction: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(given, list):
                object.__setattr__(self, field.name, tuple(given))
        where = f"Loop({self.name!r})"
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise BadDefinition(
                "Loop(name)", f"{self.name!r} cannot name a model", "Use up to 63 of a-z, 0-9, - and _, a letter first."
            )
        _check_all(self.features, Feature, where, "features")
        twice = _first_twice(feature.name for feature in self.features)
        if twice is not None:
            raise BadDefinition(where, f"feature {twice!r} is listed twice", "Give each feature a name of its own.")
        if not self.unit or not isinstance(self.unit, str):
            raise BadDefinition(where, "unit is empty", "Name the feature or request parameter that tells users apart.")
        for name, verb in (("label", "resolve"), ("learner", "fit"), ("data", "parts"), ("plan", "choose")):
            if isinstance(getattr(self, name), type) or not hasattr(getattr(self, name), verb):
                raise BadDefinition(where, f"{name}={getattr(self, name)!r} is no {name}", _ONE_OF[name])
        self._check_model(where)
        for name, verb in (("triggers", "fires"), ("gates", "judge"), ("rollout", "judge")):
            for item in getattr(self, name):
                if isinstance(item, type) or not hasattr(item, verb):
                    raise BadDefinition(where, f"{name} holds {item!r}", _ONE_OF[name])
        if self.of_parameters:
            self._check_parameters(where)
        for gate in self.gates:
            _check_metric(gate, self.label, where)
        for stage in self.rollout:
            if hasattr(stage, "check_fits"):
                stage.check_fits(
                    features=[each.name for each in self.features], label=self.label, answers=not self.of_parameters,
                    where=where,
                )  # fmt: skip
            else:
                _check_metric(stage, self.label, where)
            if getattr(stage, "decides", False) and self.outcome_depends_on_prediction:
                raise BadDefinition(where, f"{stage!r} is to decide without serving anybody", _MAY_NOT_DECIDE)
        for trigger in self.triggers:
            _check_metric(trigger, self.label, where)
        _check_plan(self, where)
        _check_rollout(self.rollout, where)
        duration(self.holdout, where=f"{where}, holdout=…")
        duration(self.tick, where=f"{where}, tick=…")

    def _check_model(self, where: str) -> None:
        """Refuse a loop that lacks what a model takes."""
        if self.of_parameters:
            return
        if not self.features:
            raise BadDefinition(where, "it has no features", "List at least one Feature(name, type).")
        for name in ("data", "plan"):
            if getattr(self, name) == NOTHING:
                raise BadDefinition(where, f"{name} is not given", _ONE_OF[name])
        self._check_learner(where)
        self._check_data(where)

    def _check_learner(self, where: str) -> None:
        """Refuse a learner that cannot read the features or give the answers."""
        name = type(self.learner).__name__
        if self.label.task not in getattr(self.learner, "tasks", _USUAL_TASKS):
            what = f"{name} learns no {self.label.task} label"
            raise BadDefinition(where, what, "Use a learner that does, such as ScikitLearn(…) or XGBoost(…).")
        texts = [feature.name for feature in self.features if feature.type == "text"]
        if texts and not getattr(self.learner, "reads_text", False):
            what = f"{name} reads no text, and feature {texts[0]!r} is one"
            raise BadDefinition(where, what, "Use a learner that does, such as ScikitLearn(…), or make it a category.")

    def _check_data(self, where: str) -> None:
        """Refuse data that does not fit the features, the label or the plan."""
        from leaven.training.plans import Stateless

        if hasattr(self.data, "check_fits"):
            self.data.check_fits(features=[each.name for each in self.features], task=self.label.task, where=where)
        if getattr(self.data, "shifts_probabilities", False) and not isinstance(self.plan, Stateless):
            what = (
                f"{self.data!r} draws rows by their label, and updates of {self.plan!r} would learn from all new ones"
            )
            raise BadDefinition(where, what, "Use plan=Stateless(), or sample by time or a feature.")

    def _check_parameters(self, where: str) -> None:
        """Refuse what only a model can do in a loop of parameters."""
        for name in ("data", "plan", "triggers", "gates"):
            if getattr(self, name) not in (NOTHING, ()):
                what = f"its versions are sets of parameters, which nothing is trained for, and it has {name}"
                raise BadDefinition(where, what, f"Leave {name} out.")
        if any(step.kind == "shadow" for stage in self.rollout for step in stage.steps()):
            raise BadDefinition(where, "parameters answer nothing that could be shadowed", "Use Canary(…) alone.")
        for feature in self.features:
            if feature.required:
                what = f"feature {feature.name!r} is required, and arms are given whatever is known of a unit"
                raise BadDefinition(where, what, "Leave required out.")

    @property
    def of_parameters(self) -> bool:
        """Whether its versions are sets of parameters, so that there is no model to train or to ask."""
        return getattr(self.learner, "format", None) == PARAMETERS

    def need_model(self, what: str) -> None:
        """Return if this loop has a model.

        Raises:
            BadDefinition: it has none, and `what` is for loops that do.
        """
        if self.of_parameters:
            why = f"the versions of {self.name!r} are sets of parameters, which people write"
            raise BadDefinition(what, why, f"Add one: leaven parameters add {self.name} FILE.json.")

    @property
    def schema(self) -> Schema:
        """What a gateway must know to take requests."""
        rules = {f.name: f.rule for f in self.features if f.rule is not None}
        features = tuple((f.name, f.type, f.required) for f in self.features)
        return Schema(features, self.unit, self.label.task, rules, self.classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the label tells apart, in order; none where it is a number or a yes or no."""
        return tuple(getattr(self.label, "classes", ()))

    @property
    def pace(self) -> Sequence[Trigger]:
        """What starts refreshes: the triggers, or where there are none, the one that the plan stands for."""
        update = getattr(self.plan, "update", None)
        if self.triggers or not isinstance(update, str):
            return self.triggers
        from leaven.triggers import Every

        return (Every(update),)

    @property
    def digest(self) -> str:
        """Digest of the definition as written: 16 hexadecimal digits."""
        return sha256(repr(self).encode()).hexdigest()[:16]

    @property
    def holdout_length(self) -> timedelta:
        """Length of the stretch that is kept from training."""
        return duration(self.holdout)

    @property
    def tick_length(self) -> timedelta:
        """How often the controller looks."""
        return duration(self.tick)


_USUAL_TASKS = ("binary", "regression")  # of a learner that does not say
_ONE_OF = {
    "label": 'Use Label("name", within="36h") or Happens("name", within="1h").',
    "learner": "Use a learner of leaven.learners, such as XGBoost(rounds=100).",
    "data": 'Use Recent("28d"), AllHistory(), or Recent("28d") + Sample("before 28d", rows=20_000).',
    "plan": "Use Stateless(), Stateful() or Hybrid() of leaven.training.",
    "triggers": 'Use triggers of leaven.triggers, such as Every("7d").',
    "gates": 'Use gates of leaven.gates, such as NotWorse("log_loss").',
    "rollout": 'Use stages of leaven.experiments, such as Shadow("1d") and Canary(0.1, 0.5).',
}

_MAY_NOT_DECIDE = (
    "Say outcome_depends_on_prediction=False if the outcome is the same whatever is answered; else leave out decides."
)


def _check_all(items: Iterable[object], kind: type, where: str, name: str) -> None:
    for item in items:
        if not isinstance(item, kind):
            raise BadDefinition(where, f"{name} holds {item!r}", f"Each of {name} must be a {kind.__name__}(…).")


def _first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _check_plan(loop: Loop, where: str) -> None:
    """The learner must be able to carry the plan out."""
    from leaven.training.plans import check_plan

    check_plan(loop.plan, loop.learner, task=loop.label.task, where=f"{where}, plan=…")


def _check_rollout(rollout: Sequence[Stage], where: str) -> None:
    """Stages of one rollout must fit each other; those of an owner's own may say little of their steps."""
    from leaven.experiments.trial import check_rollout

    if all(hasattr(stage, "steps") for stage in rollout):
        check_rollout(rollout, where=f"{where}, rollout=…")


def _check_metric(part: object, label: LabelRule, where: str) -> None:
    """A metric of a gate, stage or trigger must fit the label."""
    tasks = getattr(part, "tasks", None)
    if tasks is not None and label.task not in tasks:
        raise BadDefinition(
            where, f"{part!r} does not fit a {label.task} label", f"It is for {' and '.join(tasks)} ones."
        )
    metric = getattr(part, "metric", None)
    if metric is None:
        return
    from leaven.stats.metrics import METRICS

    if metric not in METRICS:
        raise BadDefinition(where, f"{part!r} names no metric", f"Use one of {', '.join(METRICS)}.")
    if label.task not in METRICS[metric].tasks:
        fitting = ", ".join(name for name, entry in METRICS.items() if label.task in entry.tasks)
        raise BadDefinition(where, f"{part!r} does not fit a {label.task} label", f"Use one of {fitting}.")

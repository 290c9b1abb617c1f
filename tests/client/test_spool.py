"""A spool loses nothing that it said it kept: torn lines, damage, full disks, several processes, kill -9."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaven.client.errors import SpoolFailed, SpoolFull
from leaven.client.requests import SentReport
from leaven.client.spool import FILE_BYTES, Spool
from leaven.client.spool_format import SetAside, from_lines, to_lines

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
reports = st.builds(
    SentReport, loop=texts, id=texts, name=texts, prediction_id=st.none() | texts, unit=st.none() | texts,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    kind=st.sampled_from(["label", "event", "correction"]),
    at=st.none() | st.integers(0, 2**62), source=st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)  # fmt: skip


def a_report(name: object) -> SentReport:
    return SentReport("flights", str(name), "delay", unit="u", at=1)


def ids(spool: Spool) -> list[str]:
    return [report.id for file in spool.finish() for report in spool.read(file).reports]


@given(st.lists(reports, max_size=5))
def test_what_was_written_is_read(written: list[SentReport]):
    found = from_lines(to_lines(written))
    assert (list(found.reports), found.damaged, found.torn) == (written, (), 0)


@given(st.lists(reports, min_size=1, max_size=4), st.data())
def test_a_file_cut_anywhere_holds_the_lines_before_the_cut(written: list[SentReport], data: st.DataObject):
    whole = to_lines(written)
    cut = data.draw(st.integers(0, len(whole)))
    found = from_lines(whole[:cut])
    assert list(found.reports) == written[: whole[:cut].count(b"\n")]
    assert found.damaged == ()
    assert found.torn == cut - (whole[:cut].rfind(b"\n") + 1)


@given(st.lists(reports, min_size=1, max_size=4), st.data())
def test_a_damaged_byte_costs_its_own_line_and_is_never_taken_for_a_report(
    written: list[SentReport], data: st.DataObject
):
    whole = bytearray(to_lines(written))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    found = from_lines(bytes(whole))
    hurt = bytes(to_lines(written))[:place].count(b"\n")
    assert [r for r in found.reports if r not in written] == []
    # A damaged line end joins two lines; any other byte is one line's own.
    assert len(found.reports) >= len(written) - 2
    assert all(report in found.reports for index, report in enumerate(written) if index not in (hurt, hurt + 1))


def test_reports_come_back_in_order_whatever_the_files(tmp_path: Path):
    spool = Spool(tmp_path / "spool", limit=10**9)
    many = [SentReport("flights", f"{number:05d}", "delay", unit="u" * 300) for number in range(2_000)]
    for start in range(0, len(many), 100):
        spool.append(many[start : start + 100])
    assert spool.count() == 2_000
    assert ids(spool) == [report.id for report in many]
    assert len(spool.finish()) == pytest.approx(spool.used() / FILE_BYTES, abs=2)
    for file in spool.finish():
        spool.delivered(file, [])
    assert (spool.waiting(), spool.count(), spool.used()) == (False, 0, 0)


def test_a_torn_line_is_cut_before_the_next_is_written(tmp_path: Path):
    spool = Spool(tmp_path, limit=10**6)
    spool.append([a_report("a")])
    with (tmp_path / "open.ndjson").open("ab") as file:
        file.write(to_lines([a_report("torn")])[:-5])
    spool.append([a_report("b")])
    assert ids(spool) == ["a", "b"]


def test_a_full_spool_refuses_the_whole_call_and_says_what_to_do(tmp_path: Path):
    spool = Spool(tmp_path, limit=300)
    spool.append([a_report("a")])
    with pytest.raises(SpoolFull) as full:
        spool.append([a_report(number) for number in range(5)])
    assert "spool_limit" in str(full.value)
    assert ids(spool) == ["a"]


def test_a_disk_that_takes_no_more_leaves_the_spool_as_it_was(tmp_path: Path):
    """A limit on file sizes stands in for a full disk: the write is cut short in the middle, then fails."""
    program = """
        import resource, signal, sys
        from pathlib import Path
        from leaven.client.errors import SpoolFailed
        from leaven.client.requests import SentReport
        from leaven.client.spool import Spool
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        spool = Spool(Path(sys.argv[1]), limit=10**9)
        spool.append([SentReport("m", "kept", "n", unit="u")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            spool.append([SentReport("m", str(i), "n", unit="u") for i in range(100)])
        except SpoolFailed as error:
            print(error)
        spool.append([SentReport("m", "after", "n", unit="u")])
    """
    assert hasattr(resource, "RLIMIT_FSIZE")
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert "File too large" in said.stdout
    assert ids(Spool(tmp_path, limit=10**9)) == ["kept", "after"]


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolFailed, match="Not a directory"):
        Spool(tmp_path / "file" / "spool", limit=1)


def test_only_one_delivers(tmp_path: Path):
    one, other = Spool(tmp_path, limit=1), Spool(tmp_path, limit=1)
    with one.delivering() as mine:
        assert mine
        with other.delivering() as theirs:
            assert not theirs
    with other.delivering() as theirs:
        assert theirs


def test_what_is_set_aside_can_be_read_by_anybody(tmp_path: Path):
    spool = Spool(tmp_path, limit=10**6)
    spool.append([a_report("a")])
    (file,) = spool.finish()
    spool.delivered(file, [SetAside("no loop 'flights'", 400, a_report("a"))])
    (line,) = (tmp_path / "rejected.ndjson").read_text().splitlines()
    assert json.loads(line) == {
        "reason": "no loop 'flights'", "status": 400,
        "report": {"loop": "flights", "id": "a", "name": "delay", "unit": "u", "at": 1},
    }  # fmt: skip
    assert not spool.waiting()


WRITER = """
    import sys
    from pathlib import Path
    from leaven.client.requests import SentReport
    from leaven.client.spool import Spool
    spool = Spool(Path(sys.argv[1]), limit=10**9)
    for number in range(10**9 if len(sys.argv) < 4 else int(sys.argv[3])):
        name = f"{sys.argv[2]}-{number}"
        spool.append([SentReport("m", name, "n", unit="u" * 200)])
        print(name, flush=True)
"""


def writer(folder: Path, name: str, *count: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), name, *count]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_a_folder_and_each_keeps_its_order(tmp_path: Path):
    processes = [writer(tmp_path, name, "300") for name in "abc"]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    found = ids(Spool(tmp_path, limit=1))
    assert len(found) == 900
    for name in "abc":
        assert [each for each in found if each[0] == name] == [f"{name}-{number}" for number in range(300)]


def test_nothing_is_lost_between_those_who_write_and_the_one_who_delivers(tmp_path: Path):
    """A writer that had opened the file when it was finished would write into one that is removed."""
    spool, found = Spool(tmp_path, limit=1), list[str]()
    processes = [writer(tmp_path, name, "200") for name in "abc"]
    while any(process.poll() is None for process in processes) or spool.waiting():
        for file in spool.finish():
            found += [report.id for report in spool.read(file).reports]
            spool.delivered(file, [])
    told = [name for process in processes for name in process.communicate()[0].split()]
    assert len(found) == len(told) == 600
    assert set(found) == set(told)


def test_what_was_kept_survives_kill_9_at_any_moment(tmp_path: Path):
    spool, kept = Spool(tmp_path, limit=1), []
    for turn in range(6):
        process = writer(tmp_path, str(turn))
        assert process.stdout is not None
        kept += [process.stdout.readline().strip() for _ in range(20 + 7 * turn)]
        process.send_signal(signal.SIGKILL)
        kept += [line.strip() for line in process.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    found = ids(spool)
    assert [name for name in found if name in set(kept)] == kept  # all of it, once, in order
    assert len(found) - len(kept) <= 6  # synced, but killed before it could say so


def test_threads_share_a_spool(tmp_path: Path):
    spool = Spool(tmp_path, limit=10**9)

    def write(thread: int) -> None:
        for number in range(20):
            spool.append([a_report(f"{thread}-{number}")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(spool)) == sorted(f"{thread}-{number}" for thread in range(16) for number in range(20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_child_forked_while_the_spool_is_locked_can_write(tmp_path: Path):
    program = """
        import os, sys
        from pathlib import Path
        from leaven.client.requests import SentReport
        from leaven.client.spool import Spool
        spool = Spool(Path(sys.argv[1]), limit=10**6)
        reading, writing = os.pipe()
        with spool._locked():
            child = os.fork()
            if child == 0:
                os.read(reading, 1)  # until the parent has let go
                spool.append([SentReport("m", "child", "n", unit="u")])
                os._exit(0)
        os.write(writing, b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        spool.append([SentReport("m", "parent", "n", unit="u")])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True, timeout=120)
    assert ids(Spool(tmp_path, limit=1)) == ["child", "parent"]


def test_reports_are_counted_while_another_thread_finishes_their_file(tmp_path: Path):
    spool, over = Spool(tmp_path, limit=10**6), threading.Event()

    def finish() -> None:
        while not over.is_set():
            spool.finish()

    thread = threading.Thread(target=finish)
    thread.start()
    try:
        for number in range(200):
            spool.append([a_report(number)])
            assert spool.count() == number + 1
    finally:
        over.set()
        thread.join()

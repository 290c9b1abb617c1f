"""What killed processes left behind goes, what living ones need stays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from leaven.storage.lake import QueryFailed
from leaven.storage.scratch import remove_left

from .builders import a_lake, a_prediction, commit


def test_what_a_killed_process_left_goes_and_all_else_stays(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead, alive = f"{ended.pid}-0123abcd", f"{os.getpid()}-0123abcd"
    for name in (dead, alive, "files"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "block").touch()
    for name in (f"import-{dead}.db", f"import-{dead}.db.wal", f"import-{alive}.db", "notes"):
        (tmp_path / name).touch()
    remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {alive, "files", f"import-{alive}.db", "notes"}


def test_a_query_that_fails_says_so_in_a_sentence(tmp_path):
    lake = a_lake(tmp_path)
    commit(lake, a_prediction())
    with pytest.raises(QueryFailed, match=r"a query of the lake failed: .*No files found"), lake.query() as connection:
        connection.execute("FROM read_parquet('/nowhere/x.parquet')")

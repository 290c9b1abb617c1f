"""Does an installation come back whole, and does nothing happen where it cannot?"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from leaven.backup import archive
from leaven.backup.errors import BackupDamaged, NoBackup, TargetTaken
from leaven.backup.make import Report, back_up
from leaven.backup.restore import restore
from leaven.errors import BadDefinition
from leaven.registry import loops, versions
from leaven.registry.artifacts import ArtifactStore
from leaven.settings import Settings, settings_from
from leaven.storage.control.database import ControlDatabase, DatabaseUnavailable
from leaven.storage.control.migrate import DatabaseNewer
from leaven.storage.lake import Lake
from tests.control_databases import a_version, migrated, postgres_server, postgres_url
from tests.storage.builders import a_label, a_lake, a_log, a_prediction, commit

__all__ = ["postgres_server", "postgres_url"]

KINDS = ("kept.tar.gz", "kept.tar.zst", "kept")


@pytest.fixture
def home(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation with a version, an artifact, events in lake and log, and results of steps."""
    home = tmp_path_factory.mktemp("made") / "home"
    database = migrated(f"sqlite:///{home / 'control.db'}")
    digest = ArtifactStore(home / "artifacts").put({"model": b"weights" * 1_000})
    with database.write() as connection:
        a_version(connection, artifact=digest)
    database.dispose()
    lake = a_lake(home)
    commit(lake, a_prediction("p1"), a_label("p1"))
    log = a_log(home, seal_seconds=60)
    log.append_durably([a_label("p2")]).result(60)
    log.close()
    with closing(sqlite3.connect(home / "workflows.db")) as steps, steps:
        steps.execute("CREATE TABLE step (result TEXT)")
        steps.execute("INSERT INTO step VALUES ('kept')")
    lake.close()
    return home


@pytest.fixture
def kept(home: Path, tmp_path: Path) -> Callable[[str], Path]:
    def keep(name: str) -> Path:
        make(home, tmp_path / name)
        return tmp_path / name

    return keep


def make(home: Path, place: Path) -> Report:
    return back_up(at(home), place, at=1_700_000_000_000_000)


def at(home: Path, **environment: str) -> Settings:
    return settings_from(environment, home=home)


def files(home: Path) -> dict[str, bytes]:
    return {
        path.relative_to(home).as_posix(): path.read_bytes()
        for folder in ("lake", "artifacts", "wal")
        for path in sorted((home / folder).rglob("*"))
        if path.is_file() and path.name not in ("lock", "pending")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_everything_comes_back(home: Path, tmp_path: Path, kept: Callable[[str], Path], kind: str):
    before = files(home)
    assert before
    restored = restore(kept(kind), at(tmp_path / "new"))
    assert files(tmp_path / "new") == before
    database = ControlDatabase(at(tmp_path / "new").database)
    with database.read() as connection:
        assert [version.number for version in versions.versions(connection, "flights")] == [1]
        # The loop's file was never on this machine: its text stands in.
        assert loops.loop(connection, "flights").path == restored.loop_files["flights"]
    database.dispose()
    assert Path(restored.loop_files["flights"]).read_text() == "…"
    with closing(sqlite3.connect(tmp_path / "new" / "workflows.db")) as steps:
        assert steps.execute("SELECT result FROM step").fetchall() == [("kept",)]
    assert not list((home / "run").glob("backup-*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["home", "new", kind])


def test_it_says_what_is_in_it(home: Path, tmp_path: Path):
    report = make(home, tmp_path / "kept.tar")
    assert report.header.tables == {"flights/feedback": 1, "flights/predictions": 1}
    assert report.header.segments == 1
    assert report.header.rows["versions"] == 1
    assert report.missing == ()
    assert report.locked_seconds < 10
    assert report.packed_bytes == (tmp_path / "kept.tar").stat().st_size


def test_an_artifact_that_is_not_there_is_told(home: Path, tmp_path: Path):
    (path,) = (home / "artifacts").glob("??/*.zip")
    path.unlink()
    assert make(home, tmp_path / "kept.tar").missing == (path.stem,)


@pytest.mark.parametrize("kind", ["kept.tar.gz", "kept"])
def test_nothing_is_overwritten(home: Path, tmp_path: Path, kept: Callable[[str], Path], kind: str):
    place = kept(kind)
    with pytest.raises(TargetTaken, match="is not empty"):
        make(home, place)
    before = files(home)
    with pytest.raises(TargetTaken, match="Name a new folder"):
        restore(place, at(home))
    assert files(home) == before
    (tmp_path / "empty").mkdir()
    restore(place, at(tmp_path / "empty"))
    assert files(tmp_path / "empty") == before


def test_a_backup_is_not_put_into_what_it_copies(home: Path):
    for inside in ("lake", "wal", "run"):
        (home / inside).mkdir(exist_ok=True)
        with pytest.raises(BadDefinition, match="which is copied"):
            make(home, home / inside / "kept.tar")
    with pytest.raises(BadDefinition, match="there is no folder"):
        make(home, home / "nowhere" / "kept.tar")


def test_where_nothing_is_installed_nothing_is_backed_up(tmp_path: Path):
    with pytest.raises(DatabaseUnavailable):
        make(tmp_path / "nothing", tmp_path / "kept.tar")
    assert not (tmp_path / "kept.tar").exists()


@pytest.mark.parametrize("place", range(0, 100, 9))
def test_a_damaged_byte_anywhere_is_seen_and_nothing_restored(
    kept: Callable[[str], Path], tmp_path: Path, place: int
) -> None:
    whole = kept("kept.tar.gz").read_bytes()
    content = bytearray(whole)
    content[len(content) * place // 100 + 12] ^= 0xFF
    if _unpacked(bytes(content)) == gzip.decompress(whole):
        return  # among packed zeros a byte may be another and mean the same: then nothing is damaged
    (tmp_path / "damaged.tar.gz").write_bytes(content)
    with pytest.raises((BackupDamaged, NoBackup)):
        restore(tmp_path / "damaged.tar.gz", at(tmp_path / "new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.tar.gz", "home", "kept.tar.gz"]


def _unpacked(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def test_every_file_of_a_folder_counts(kept: Callable[[str], Path], tmp_path: Path):
    place = kept("kept")
    for path in [path for path in place.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for damage in (bytes(255 - byte for byte in whole) or b"x", None):
            path.unlink() if damage is None else path.write_bytes(damage)
            with pytest.raises((BackupDamaged, NoBackup)):
                restore(place, at(tmp_path / "new"))
            path.write_bytes(whole)
    (place / "lake" / "strange").write_bytes(b"")
    with pytest.raises(BackupDamaged, match="lake/strange: not of this backup"):
        restore(place, at(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_newer_backup_is_refused_with_what_to_do(kept: Callable[[str], Path], tmp_path: Path):
    place = kept("kept")
    header = json.loads((place / archive.FIRST).read_text())
    (place / archive.FIRST).write_text(json.dumps(header | {"format": 2, "leaven": "9.0"}))
    with pytest.raises(NoBackup, match=r"a newer Leaven \(9.0\) wrote it, in layout 2. Install Leaven 9.0 or newer"):
        restore(place, at(tmp_path / "new"))
    (place / archive.FIRST).write_text(json.dumps(header | {"revision": "0999"}))
    with pytest.raises(DatabaseNewer):
        restore(place, at(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_disk_without_room_is_seen_before_anything_is_written(
    kept: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = kept("kept.tar")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(BadDefinition, match="bytes are to be restored, and 1000 are free"):
        restore(place, at(tmp_path / "new"))


def test_a_lake_and_a_database_that_are_elsewhere_come_back_there(
    home: Path, tmp_path: Path, kept: Callable[[str], Path], postgres_url: str
):
    place = kept("kept.tar")
    elsewhere = at(tmp_path / "new", LEAVEN_LAKE=str(tmp_path / "lake"), LEAVEN_DATABASE=postgres_url)
    assert restore(place, elsewhere).database.endswith(postgres_url.partition("://")[2])
    lake = Lake(elsewhere.lake)
    assert lake.stats("flights").feedback.rows == 1
    lake.close()
    assert not (tmp_path / "new" / "workflows.db").exists()
    again = tmp_path / "again.tar"
    assert "PostgreSQL" in back_up(elsewhere, again, at=1).header.left_out[0]
    back = restore(again, replace(at(tmp_path / "back"), lake=str(tmp_path / "back" / "inner" / "lake")))
    lake = Lake(back.lake)
    assert lake.stats("flights").feedback.rows == 1
    lake.close()
    with pytest.raises(TargetTaken, match="Name an empty database"):
        restore(place, at(tmp_path / "third", LEAVEN_DATABASE=postgres_url))
    assert not (tmp_path / "third").exists()


def test_what_a_killed_backup_left_is_in_nobodys_way(home: Path, tmp_path: Path):
    (home / "run" / "backup-1-dead").mkdir(parents=True)
    (tmp_path / f".kept.{os.getpid() + 1}.part").write_bytes(b"half")
    make(home, tmp_path / "kept")
    restore(tmp_path / "kept", at(tmp_path / "new"))


def test_what_lies_in_a_bucket_is_left_out_by_name_and_is_restored_beside_it(home: Path, tmp_path: Path):
    elsewhere = {"LEAVEN_LAKE": "s3://shop/lake", "LEAVEN_ARTIFACTS": "s3://shop/models"}
    report = back_up(at(home, **elsewhere), tmp_path / "kept.tar", at=1)
    assert report.header.elsewhere == {"lake": "s3://shop/lake", "artifacts": "s3://shop/models"}
    assert [what.split(",")[0] for what in report.header.left_out] == [
        "the lake at s3://shop/lake", "the artifacts at s3://shop/models",
    ]  # fmt: skip
    assert report.missing == ()
    restore(tmp_path / "kept.tar", at(tmp_path / "new", **elsewhere))
    assert not (tmp_path / "new" / "lake").exists()
    assert not (tmp_path / "new" / "artifacts").exists()
    assert list((tmp_path / "new" / "wal").glob("*/*.sealed"))


def test_what_a_backup_holds_is_not_dropped_for_a_bucket(kept: Callable[[str], Path], tmp_path: Path):
    for name in ("LEAVEN_LAKE", "LEAVEN_ARTIFACTS"):
        with pytest.raises(BadDefinition, match=r"the backup holds the .*, and s3://x/y is no folder"):
            restore(kept(f"{name}.tar"), at(tmp_path / "new", **{name: "s3://x/y"}))
    assert not (tmp_path / "new").exists()


def test_artifacts_that_are_elsewhere_come_back_there(kept: Callable[[str], Path], tmp_path: Path):
    models = tmp_path / "models"
    restore(kept("kept.tar"), at(tmp_path / "new", LEAVEN_ARTIFACTS=str(models)))
    assert list(models.glob("??/*.zip"))
    with pytest.raises(TargetTaken, match="models is not empty"):
        restore(tmp_path / "kept.tar", at(tmp_path / "third", LEAVEN_ARTIFACTS=str(models)))

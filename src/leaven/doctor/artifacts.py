"""Are the models' files there, and what was registered?"""

from __future__ import annotations

from hashlib import file_digest, sha256

from sqlalchemy import select

from leaven.doctor.finding import Examined, Subject
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import aliases, versions
from leaven.storage.place import Folder, Place, place_at

_SAMPLE = 20  # newest versions whose files are read; of the others it is seen that they are there


def check_artifacts(subject: Subject) -> Examined:
    """See that each version's file is there, and that those in use, and the newest, have their digest."""
    found = Examined()
    scratch = subject.settings.run / "artifacts"
    place = place_at(subject.settings.artifacts, setting="LEAVEN_ARTIFACTS", scratch=scratch, megabytes=0)
    database = ControlDatabase(subject.settings.database)
    try:
        with database.read() as connection:
            query = select(versions.c.loop, versions.c.number, versions.c.artifact).order_by(versions.c.created_at)
            rows = [tuple(row) for row in connection.execute(query)]
            used = {tuple(row) for row in connection.execute(select(aliases.c.loop, aliases.c.version))}
    finally:
        database.dispose()
    newest = len(rows) - _SAMPLE
    read = 0
    for index, (loop, number, digest) in enumerate(rows):
        name = f"{digest[:2]}/{digest}.zip"
        path, where = f"{place.uri}/{name}", f"version {number} of {loop}"
        mend = f"Restore it from a backup, or train it again; if it serves: leaven rollback {loop}."
        if place.ends(name, 1) is None:
            found.problem(f"its file {path} is missing", where=where, mend=mend)
        elif subject.deep or index >= newest or (loop, number) in used:
            read += 1
            if _digest_of(place, name) != digest:
                found.problem(f"its file {path} is damaged: its content has another digest", where=where, mend=mend)
    found.summary = f"{len(rows)} versions, the files of {read} read" if rows else "no version yet"
    return found


def _digest_of(place: Place, name: str) -> str:
    if not isinstance(place, Folder):
        return sha256(place.read(name)).hexdigest()
    with (place.path / name).open("rb") as file:  # a large one need not fit into memory
        return file_digest(file, "sha256").hexdigest()

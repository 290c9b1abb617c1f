"""Are the models' files there, and what was registered?"""

from __future__ import annotations

from sqlalchemy import select

from leaven.doctor.finding import Examined, Subject
from leaven.registry.artifacts import ArtifactDamaged, ArtifactMissing
from leaven.registry.remote_artifacts import artifacts_at
from leaven.storage.control.database import ControlDatabase
from leaven.storage.control.schema import aliases, versions
from leaven.storage.place import folder_of

_SAMPLE = 20  # newest versions whose files are read; of the others it is seen that they are there


def check_artifacts(subject: Subject) -> Examined:
    """See that each version's file is there, and that those in use, and the newest, have their digest."""
    settings, found = subject.settings, Examined()
    store = artifacts_at(settings.artifacts, copies=settings.run / "artifacts")
    is_here = folder_of(settings.artifacts) is not None  # of others, only those that are read are seen
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
        path = store.path(digest)
        where = f"version {number} of {loop}"
        mend = f"leaven restore a backup of {path.name}, or train it again; if it serves: leaven rollback {loop}."
        is_read = subject.deep or index >= newest or (loop, number) in used
        if is_here and not path.is_file():
            found.problem(f"its file {path} is missing", where=where, mend=mend)
        elif is_read:
            read += 1
            try:
                store.get(digest)
            except (ArtifactMissing, ArtifactDamaged) as error:
                found.problem(str(error), where=where, mend=mend)
    found.summary = f"{len(rows)} versions, the files of {read} read" if rows else "no version yet"
    return found

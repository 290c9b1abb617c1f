"""What can be wrong with a backup, or with the place that it is to be restored to?"""

from __future__ import annotations

from leaven.errors import LeavenError


class BackupDamaged(LeavenError, RuntimeError):
    """A backup is not what was written."""

    def __init__(self, backup: str, what: str) -> None:
        super().__init__(backup, what)
        self.backup, self.what = backup, what

    def __str__(self) -> str:
        return f"the backup {self.backup} is damaged: {self.what}. Nothing was restored; use another copy of it."


class NoBackup(LeavenError, ValueError):
    """What was given is no backup that this Leaven can read."""

    def __init__(self, backup: str, what: str, mend: str) -> None:
        super().__init__(backup, what, mend)
        self.backup, self.what, self.mend = backup, what, mend

    def __str__(self) -> str:
        return f"{self.backup}: {self.what}. {self.mend}"


class TargetTaken(LeavenError, ValueError):
    """Something is where a backup, or what is restored from one, is to go."""

    def __init__(self, target: str, mend: str) -> None:
        super().__init__(target, mend)
        self.target, self.mend = target, mend

    def __str__(self) -> str:
        return f"{self.target} is not empty, and nothing is overwritten. {self.mend}"


class BackupIncomplete(LeavenError, RuntimeError):
    """Something that belongs to the installation could not be copied."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why

    def __str__(self) -> str:
        return f"{what_of(self.what)} could not be copied: {self.why}. No backup was written; try again."


def what_of(path: str) -> str:
    """Return what a file of an installation is, as people call it."""
    kinds = {"wal": "a segment of the log", "lake": "a file of the lake", "artifacts": "an artifact"}
    return f"{kinds.get(path.split('/')[0], 'a file')} ({path})"

"""How does an examination go on when a check hangs, and who mends what it found?

Each check runs on a thread of its own and has its time; one that does not end (a network file system that is gone, a
database that does not answer) is left behind, which is itself a finding. Nothing is changed without being asked for.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from leaven.doctor.finding import Check, Examined, Finding, Subject, Trouble
from leaven.errors import LeavenError
from leaven.storage.control.database import DatabaseUnavailable
from leaven.storage.control.migrate import DatabaseNewer

T = TypeVar("T")
State = Literal["healthy", "notes", "problems", "failed"]

_log = logging.getLogger(__name__)


class CheckResult(msgspec.Struct, frozen=True):
    """What came of one check."""

    check: str
    state: State
    summary: str
    findings: tuple[Finding, ...]
    seconds: float


def examine(
    subject: Subject,
    checks: Mapping[str, Check],
    *,
    seconds: float,
    timer: Callable[[], float],
    mend: bool = False,
    mend_seconds: float = 120.0,
    tell: Callable[[str], None] = lambda check: None,
) -> list[CheckResult]:
    """Return what each check says, in order.

    Args:
        subject: What is looked at.
        checks: By name.
        seconds: That each may take.
        timer: Seconds that pass, from any start.
        mend: Whether to do what findings can have done.
        mend_seconds: That each mending may take.
        tell: Told which check begins.
    """
    results: list[CheckResult] = []
    for name, check in checks.items():
        tell(name)
        began = timer()
        known = any(result.check == "database" and result.state == "problems" for result in results)
        examined, failed = _looked(name, check, subject, seconds, without_database=known)
        findings = tuple(_mended(trouble, mend_seconds) if mend else trouble.finding for trouble in examined.troubles)
        state = "failed" if failed else _state(findings)
        results.append(CheckResult(name, state, examined.summary, findings, round(timer() - began, 3)))
    return results


def _looked(
    name: str, check: Check, subject: Subject, seconds: float, *, without_database: bool
) -> tuple[Examined, bool]:
    """What a check saw, and whether it failed itself; that the database cannot be read is told once."""
    try:
        return _within(seconds, lambda: check(subject), name), False
    except _Late:
        late = Examined(f"did not end within {seconds:g} s")
        late.problem(
            f"looking took longer than {seconds:g} s and was given up",
            where=name,
            mend="A disk or a database does not answer, or there is much to read: try --seconds 300.",
        )
        return late, False
    except Exception as error:
        if without_database and isinstance(error, DatabaseUnavailable | DatabaseNewer):
            return Examined("not looked at, since the control database cannot be read"), False
        said = str(error) if isinstance(error, LeavenError | OSError) else f"{type(error).__name__}: {error}"
        _log.debug("check %s failed", name, exc_info=True)
        failed = Examined(f"could not be looked at: {said}")
        failed.problem(said, where=name, mend="Mend this first, then look again.")
        return failed, not isinstance(error, LeavenError | OSError)


def _mended(trouble: Trouble, seconds: float) -> Finding:
    if trouble.act is None:
        return trouble.finding
    try:
        return msgspec.structs.replace(trouble.finding, mended=_within(seconds, trouble.act, "mending"))
    except _Late:
        why = f"it did not end within {seconds:g} s, and may go on"
    except Exception as error:
        why = str(error) or type(error).__name__
    return msgspec.structs.replace(trouble.finding, trouble=why)


def _state(findings: tuple[Finding, ...]) -> State:
    left = [finding for finding in findings if finding.mended is None]
    if any(finding.level == "problem" for finding in left):
        return "problems"
    return "notes" if left else "healthy"


class _Late(Exception):  # never leaves this file
    """Something did not end in time."""


def _within(seconds: float, act: Callable[[], T], name: str) -> T:
    """Return what `act` returns, unless it takes longer; it is then left alone, on a thread that ends with us."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((True, act()))
        except BaseException as error:
            outcome.extend((False, error))

    thread = threading.Thread(target=run, name=f"doctor {name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if len(outcome) < 2:
        raise _Late
    if not outcome[0]:
        raise outcome[1]
    result: T = outcome[1]
    return result

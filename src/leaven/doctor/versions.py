"""Do the programs fit together?"""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from packaging.requirements import Requirement

from leaven import __version__
from leaven.doctor.finding import Examined, Subject
from leaven.runfile import stored_parts


def check_versions(subject: Subject) -> Examined:
    """Compare what is installed with what Leaven needs, and the parts that run with each other."""
    found = Examined(f"leaven {__version__}, Python {platform.python_version()}")
    try:
        needed = [Requirement(line) for line in metadata.requires("leaven") or ()]
    except metadata.PackageNotFoundError:
        found.note(
            "Leaven is not installed as a package, so what it needs is not known",
            where=sys.prefix,
            mend="pip install leaven",
        )
        needed = []
    for requirement in needed:
        _check_package(requirement, found)
    running = {(part.facts.leaven, part.facts.python) for part in stored_parts(subject.settings.run) if part.lives}
    if len(running | {(__version__, platform.python_version())}) > 1:
        told = ", ".join(f"{leaven} on Python {python}" for leaven, python in sorted(running))
        found.problem(
            f"parts of different versions run: {told}; this is {__version__}",
            where=subject.host,
            mend="Restart all parts, so that they run what is installed now.",
        )
    return found


def _check_package(requirement: Requirement, found: Examined) -> None:
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        if wanted:
            found.problem(
                f"{requirement.name} is not installed", where=sys.prefix, mend=f"pip install '{_plain(requirement)}'"
            )
        return
    # What an extra asks for counts where it is installed: it is then used.
    if requirement.specifier and not requirement.specifier.contains(installed, prereleases=True):
        level = found.problem if wanted else found.note
        level(
            f"{requirement.name} is {installed}, and Leaven works with {requirement.specifier}",
            where=sys.prefix,
            mend=f"pip install '{_plain(requirement)}'",
        )


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"

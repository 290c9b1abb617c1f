"""Does the environment say what its writer meant?"""

from __future__ import annotations

from leaven.doctor.finding import Examined, Subject
from leaven.errors import BadDefinition
from leaven.gateway.tls import SOON_SECONDS, BadCertificate, checked_pair
from leaven.settings import known_settings, settings_from, unknown_settings


def check_settings(subject: Subject) -> Examined:
    """Look for variables that mean nothing, and for values that cannot be meant."""
    known = known_settings()
    given = sorted(name for name in subject.environment if name in known)
    found = Examined(f"{', '.join(given) or 'no LEAVEN_ variable'} set; home {subject.settings.home}")
    for name, meant in unknown_settings(known, subject.environment).items():
        found.problem("it means nothing to Leaven", where=name, mend=f"Did you mean {meant}?" if meant else "Unset it.")
    for name in given:
        try:
            settings_from({name: subject.environment[name]})
        except BadDefinition as error:
            if not name.startswith("LEAVEN_TLS"):  # those two only make sense together
                found.problem(error.what, where=error.where, mend=error.mend)
    try:
        settings_from(subject.environment)
    except BadDefinition as error:
        if error.where not in given:
            found.problem(error.what, where=error.where, mend=error.mend)
    _check_certificate(subject, found)
    if subject.settings.auth == "off":
        found.note(
            "whoever reaches the gateway may use it",
            where="LEAVEN_AUTH=off",
            mend="Unset it, unless a proxy in front asks who somebody is.",
        )
    return found


def _check_certificate(subject: Subject, found: Examined) -> None:
    cert, key, now = subject.settings.tls_cert, subject.settings.tls_key, subject.now / 1e6
    if cert is None or key is None:
        return
    try:
        ends = checked_pair(cert, key, now=now)
    except BadCertificate as error:
        found.problem(error.why, where=cert, mend=error.mend)
        return
    if ends - now < SOON_SECONDS:
        found.problem(
            f"it ends in {(ends - now) / 86_400:.0f} days", where=cert, mend="Renew it; no restart is needed."
        )

"""Does the gateway answer, and could one listen?"""

from __future__ import annotations

import socket
import ssl
import urllib.error
import urllib.request

from leaven.doctor.finding import Examined, Subject
from leaven.runfile import stored_parts

_SECONDS = 3.0


def check_ports(subject: Subject) -> Examined:
    """Ask each gateway that runs here whether it lives and is ready; where none does, see that its port is free."""
    found = Examined()
    urls = [part.facts.url for part in stored_parts(subject.settings.run) if part.lives and part.facts.url]
    for url in urls:
        live, ready = (_status(f"{url}/v2/health/{what}") for what in ("live", "ready"))
        if live != 200:
            found.problem(f"it does not answer ({live})", where=url, mend="See its log; restart it.")
        elif ready != 200:
            found.note(
                "it lives and is not ready: it has read no routing table yet",
                where=url,
                mend="See that the control database can be read, and that a version was promoted.",
            )
    if urls:
        found.summary = ", ".join(urls)
        return found
    try:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(("127.0.0.1", subject.port))
        found.summary = f"no gateway runs here; port {subject.port} is free"
    except OSError as error:
        found.summary = f"no gateway of this installation runs here; port {subject.port} is taken"
        found.note(
            f"another program has it ({error.strerror})",
            where=f"127.0.0.1:{subject.port}",
            mend="Give the gateway another: --port.",
        )
    return found


def _status(url: str) -> int | str:
    # It is our own gateway on this machine, whatever name its certificate is for.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS, context=context) as reply:  # noqa: S310
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(getattr(error, "reason", error))

"""What does a gateway hold for an arm that is a set of parameters?

The parameters as callers get them, read when the routing table that names them is installed: no request waits for a
disk or a database. There is nothing to ask for an answer.
"""

from __future__ import annotations

import msgspec

from leaven.gateway.answering import ArmDown, Asked, Columns
from leaven.gateway.serving import Serving


class ParametersArm:
    """An arm that callers ask about, and use themselves."""

    def __init__(self, written: bytes) -> None:
        """Hold parameters that were written as JSON."""
        self.written = msgspec.Raw(written)

    async def ask(self, columns: Columns, count: int) -> Asked:
        """Fail, always: a caller that wants an answer is refused before anybody asks."""
        raise ArmDown("it is a set of parameters, and answers nothing")


def parameters_of(serving: Serving, version: str) -> msgspec.Raw | None:
    """Return the parameters of a version that is served, or None where it is a model."""
    arm = serving.models[version]
    return arm.written if isinstance(arm, ParametersArm) else None

"""How are models listed, loaded and unloaded over HTTP?"""

from __future__ import annotations

from typing import Any

import msgspec

from leaven.gateway.http import Answer, Limits, Receive, Scope, allow, json_answer, read_body
from leaven.gateway.protocol import decode_json
from leaven.gateway.refusals import BadRequest, UnknownPath, shown
from leaven.gateway.repository import Repository

_ROOT = "/v2/repository/"


class _Index(msgspec.Struct):
    ready: bool = False


class _Change(msgspec.Struct):
    parameters: dict[str, Any] = {}


_index = msgspec.json.Decoder(_Index).decode
_change = msgspec.json.Decoder(_Change).decode


class Managing:
    """The routes below `/v2/repository/`."""

    def __init__(self, repository: Repository, limits: Limits) -> None:
        self._repository, self._limits = repository, limits

    async def route(self, scope: Scope, receive: Receive) -> Answer:
        """Answer a request below `/v2/repository/`."""
        path: str = scope["path"].removeprefix(_ROOT)
        model, _, verb = path.removeprefix("models/").rpartition("/")
        if path != "index" and not (path.startswith("models/") and model and verb in ("load", "unload")):
            raise UnknownPath(scope["path"])
        allow(scope, "POST")
        limits = self._limits
        body = await read_body(
            dict(scope["headers"]), receive, limits.feedback_body, seconds=limits.body_seconds, room=limits.room
        )
        if path == "index":
            said: _Index = decode_json(_index, body or b"{}")
            return json_answer(200, self._repository.index(ready_only=said.ready))
        change: _Change = decode_json(_change, body or b"{}")
        check_parameters(change.parameters)
        await (self._repository.load(model) if verb == "load" else self._repository.unload(model))
        return json_answer(200, {})


def check_parameters(parameters: dict[str, Any]) -> None:
    """Refuse to load what a caller brings along: versions come from the registry, where each has its history.

    Raises:
        BadRequest: there is a model's configuration or file among the parameters.
    """
    for name in parameters:
        if name == "config" or name.startswith("file:"):
            raise BadRequest(f"parameters.{shown(name)}", "models are not taken from a request",
                             "Train or register a version; `leaven retrain` and `leaven promote` do.")  # fmt: skip

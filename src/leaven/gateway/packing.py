"""Is a reply packed, and how?

Where the caller asks for one coding alone, as the stock client does when told to compress, every reply is packed. Most
HTTP libraries list what they can unpack with every request; for them only what is worth it is packed.
"""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache

from leaven.gateway.http import Answer, Headers, Scope

_WORTH_IT = 1024  # bytes from which packing pays where nobody insists on it
_ON_A_THREAD = 64 * 1024  # bytes from which others should be answered meanwhile
_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's names for the two containers


async def packed(scope: Scope, answer: Answer) -> tuple[bytes, Headers]:
    """Return the body of a reply and its headers as they go out to this request."""
    accepted = next((value for name, value in scope["headers"] if name == b"accept-encoding"), None)
    if accepted is None or answer.status != 200:
        return answer.body, [*answer.headers]
    coding, smallest = wanted(accepted)
    if coding is None or len(answer.body) < smallest:
        return answer.body, [*answer.headers]
    if len(answer.body) < _ON_A_THREAD:
        body = pack(answer.body, coding)
    else:
        body = await asyncio.get_running_loop().run_in_executor(None, pack, answer.body, coding)
    return body, [*answer.headers, (b"content-encoding", coding.encode()), (b"vary", b"accept-encoding")]


@lru_cache(maxsize=256)
def wanted(accepted: bytes) -> tuple[str | None, int]:
    """Return the coding that an Accept-Encoding header asks for, if it is one of ours, and the smallest body for it."""
    weights: dict[str, float] = {}
    for item in accepted.decode("latin-1").lower().split(","):
        name, _, weight = item.partition(";")
        weights[name.strip()] = _weight(weight)
    ours = {name: weights.get(name, weights.get("*", 0.0)) for name in _WINDOW}
    best = max(ours, key=lambda name: ours[name])
    if ours[best] <= 0:
        return None, 0
    return best, 0 if list(weights) == [best] else _WORTH_IT


def _weight(text: str) -> float:
    name, _, value = text.strip().partition("=")
    if not name:
        return 1.0
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


def pack(body: bytes, coding: str) -> bytes:
    """Return `body` packed as `gzip` or `deflate`; quickly rather than tightly."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW[coding])
    return packer.compress(body) + packer.flush()

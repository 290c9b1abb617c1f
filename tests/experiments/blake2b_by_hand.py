"""BLAKE2b from RFC 7693, in plain Python and for one-block messages only: the oracle of the assignment's positions."""

from __future__ import annotations

IV = (0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
      0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179)  # fmt: skip
SIGMA = (
    "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
    "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0",
)  # fmt: skip
COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
           (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))  # fmt: skip
MASK = 2**64 - 1


def blake2b_by_hand(message: bytes, *, size: int, key: bytes = b"") -> bytes:
    """Return the digest of `message`, at most 128 bytes long."""
    assert len(message) <= 128
    state = list(IV)
    state[0] ^= 0x01010000 ^ (len(key) << 8) ^ size
    blocks = [block for block in (key, message) if block] or [b""]
    seen = 0
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        # A key is a whole block of its own, so all of its padding counts.
        seen += len(block) if last and not (key and len(blocks) == 1) else 128
        state = _compressed(state, block.ljust(128, b"\0"), seen, last=last)
    return b"".join(word.to_bytes(8, "little") for word in state)[:size]


def _compressed(state: list[int], block: bytes, seen: int, *, last: bool) -> list[int]:
    words = [int.from_bytes(block[i : i + 8], "little") for i in range(0, 128, 8)]
    v = [*state, *IV]
    v[12] ^= seen
    v[14] ^= MASK if last else 0
    for turn in range(12):
        order = [int(digit, 16) for digit in SIGMA[turn % 10]]
        for number, (a, b, c, d) in enumerate(COLUMNS):
            for word, left, right in ((order[2 * number], 32, 24), (order[2 * number + 1], 16, 63)):
                v[a] = (v[a] + v[b] + words[word]) & MASK
                v[d] = _turned(v[d] ^ v[a], left)
                v[c] = (v[c] + v[d]) & MASK
                v[b] = _turned(v[b] ^ v[c], right)
    return [state[i] ^ v[i] ^ v[i + 8] for i in range(8)]


def _turned(word: int, bits: int) -> int:
    return (word >> bits | word << (64 - bits)) & MASK

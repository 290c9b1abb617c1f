"""How is a graph of versions drawn? One row per version, oldest on top, as histories of code are drawn."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from html import escape

from leaven.cli.lineage import headline, reasons
from leaven.controller.lineage import Lineage, Node

_ROW, _LANE, _TOP, _LEFT, _RADIUS, _LETTERS = 54, 26, 56, 28, 7, 150
_COLOURS = {"champion": "#d9730d", "pass": "#1f77b4", "fail": "#8a8f98", "undecided": "#8a8f98"}
_STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#222}.what{font-size:13px}.more{font-size:11px;fill:#667}"
    ".title{font-size:15px;font-weight:600}path{fill:none;stroke-width:2}"
)


def drawn(found: Lineage) -> str:
    """Return an SVG of the graph: a solid line to what a version continues, a dashed one to what it was to replace."""
    lanes = lanes_of(found.versions)
    at = {node.version: (_LEFT + _LANE * lanes[i], _TOP + _ROW * i) for i, node in enumerate(found.versions)}
    texts_at = _LEFT + _LANE * (max(lanes, default=0) + 1)
    lines = [line for node in found.versions for line in _lines(node, at)]
    marks = [mark for node in found.versions for mark in _mark(node, at[node.version], texts_at)]
    longest = max((len(text) for node in found.versions for text in _texts(node)), default=0)
    width, height = texts_at + max(480, 8 * longest), _TOP + _ROW * len(found.versions)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<style>{_STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT - _RADIUS}" y="26">{escape(found.loop)}: versions and where they come from'
        "</text>",
        *lines, *marks, "</svg>", "",
    ])  # fmt: skip


def lanes_of(nodes: Sequence[Node]) -> list[int]:
    """Return the column of each version.

    The last one that came of a version takes its column, which stays free for it until then; others, and those that
    came of nothing here, take the first free column.
    """
    there = {node.version for node in nodes}
    last = {_above(node, there): i for i, node in enumerate(nodes)}
    tips: list[int] = []  # by column: the newest version in it
    lanes: list[int] = []
    for i, node in enumerate(nodes):
        above = _above(node, there)
        if above is not None and last[above] == i:
            lane = tips.index(above)
        else:
            lane = next((lane for lane, tip in enumerate(tips) if last.get(tip, -1) < i), len(tips))
        tips[lane : lane + 1] = [node.version]
        lanes.append(lane)
    return lanes


def _above(node: Node, there: Collection[int]) -> int | None:
    """What a version continues, or what it was to replace."""
    return next((each for each in (node.parent, node.replaces) if each is not None and each in there), None)


def _lines(node: Node, at: dict[int, tuple[int, int]]) -> list[str]:
    above = _above(node, at)
    if above is None:
        return []
    style = 'stroke="#445"' if above == node.parent else 'stroke="#99a" stroke-dasharray="4 4"'
    return [_path(at[above], at[node.version], style)]


def _path(start: tuple[int, int], end: tuple[int, int], style: str) -> str:
    (x, y), (to_x, to_y) = start, end
    bend = to_y - _ROW // 2
    return f'<path {style} d="M{x} {y} L{x} {to_y - _ROW} C{x} {bend} {to_x} {bend} {to_x} {to_y}"/>'


def _mark(node: Node, place: tuple[int, int], texts_at: int) -> list[str]:
    (x, y), outcome = place, "champion" if "champion" in node.aliases else (node.gate or {}).get("outcome", "pass")
    colour = _COLOURS.get(outcome, _COLOURS["pass"])
    filled = colour if node.mode == "fit" else "#fff"
    return [
        f'<circle cx="{x}" cy="{y}" r="{_RADIUS}" fill="{filled}" stroke="{colour}" stroke-width="3"/>',
        *[
            f'<text class="{name}" x="{texts_at}" y="{y + below}">{escape(text)}</text>'
            for (name, below), text in zip((("what", 0), ("more", 15)), _texts(node), strict=True)
        ],
    ]


def _texts(node: Node) -> tuple[str, str]:
    """What a version is, and why it was made, and so."""
    return _cut(headline(node)), _cut("; ".join(reasons(node)))


def _cut(text: str) -> str:
    first = text.splitlines()[0] if text else ""
    return first if len(first) <= _LETTERS else first[: _LETTERS - 1] + "…"

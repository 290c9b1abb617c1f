"""How does a LightGBM model get more columns without being trained?

Its text says how many features there are, what they are called and what they held, and by which number a split names
one. These lines are changed; where the text is of a version that was not tested, nothing is.

LightGBM ends the whole process on a text that is not whole, so the lengths of the trees, by which it finds them, are
counted anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from leaven.training.surgery import UnknownText

TESTED = ("v4",)  # versions of the text; 4.5 and 4.7 of the library, tested, write this one
_END = "end of trees"


def with_columns(text: str, *, names: Sequence[str], places: Sequence[int]) -> str:
    """Return a model's text with its columns changed; every tree keeps its splits and values.

    Args:
        text: The model as `model_to_string` gives it.
        names: What the columns are to be called.
        places: Where the columns that it takes already stand among these.

    Raises:
        UnknownText: the text is of another version, or does not look as that version's does.
    """
    head, *trees = text.split("\nTree=")
    if not trees:
        raise UnknownText("LightGBM", "the model has no trees")
    last, end, tail = trees[-1].partition(_END)
    if not end:
        raise UnknownText("LightGBM", "the model's text has no end of trees")
    whole = (*(f"{body}\n" for body in trees[:-1]), last)  # with the line's end at which the text was cut
    changed = [_tree(f"Tree={body}", places) for body in whole]
    sizes = " ".join(str(len(one.encode())) for one in changed)
    return _head(head, names, places, sizes) + "\n" + "".join(changed) + end + _tail(tail, names, places)


def _head(head: str, names: Sequence[str], places: Sequence[int], sizes: str) -> str:
    facts = dict(line.split("=", 1) for line in head.splitlines() if "=" in line)
    if facts.get("version") not in TESTED:
        what = f"the model's text is of version {facts.get('version')}, and only {', '.join(TESTED)} was tested"
        raise UnknownText("LightGBM", what)
    held = facts.get("feature_infos", "").split(" ")
    unknown = {"monotone_constraints", "linear_tree"} & facts.keys()
    if len(held) != len(places) or unknown:
        raise UnknownText("LightGBM", f"the model's text has {len(held)} columns {' and '.join(unknown)}")
    infos = ["none"] * len(names)  # what the library itself says of a column that was never split
    for info, place in zip(held, places, strict=True):
        infos[place] = info
    new = {
        "max_feature_idx": str(len(names) - 1),
        "feature_names": " ".join(names),
        "feature_infos": " ".join(infos),
        "tree_sizes": sizes,
    }
    lines = (line.split("=", 1) for line in head.splitlines())
    return "\n".join("=".join([name, *(new.get(name, one) for one in rest)]) for name, *rest in lines) + "\n"


def _tree(tree: str, places: Sequence[int]) -> str:
    """One tree with its splits naming the columns by where they stand now."""
    lines = tree.split("\n")
    for index, line in enumerate(lines):
        if line.startswith("split_feature=") and line != "split_feature=":
            old = line.removeprefix("split_feature=").split(" ")
            lines[index] = f"split_feature={' '.join(str(places[int(one)]) for one in old)}"
    return "\n".join(lines)


def _tail(tail: str, names: Sequence[str], places: Sequence[int]) -> str:
    """What follows the trees: how often each column was split, by name, and settings, which an update gives anew."""
    before, mark, rest = tail.partition("\nfeature_importances:\n")
    if not mark:
        return tail
    counts, end, settings = rest.partition("\n\n")
    renamed = [_renamed(line, names, places) for line in counts.splitlines()]
    return before + mark + "\n".join(renamed) + end + settings


def _renamed(line: str, names: Sequence[str], places: Sequence[int]) -> str:
    name, _, count = line.partition("=")
    # Names begin with the column's number, by which the old one is told.
    return f"{names[places[int(name.partition('_')[0])]]}={count}"

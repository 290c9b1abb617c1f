"""What do the words of an option hold: pairs, shares, numbers?"""

from __future__ import annotations

from leaven.errors import BadDefinition


def pair(option: str, given: str, sign: str, form: str) -> tuple[str, str]:
    """Return both sides of `sign`; of several `=` the last one counts, of other signs the first."""
    left, found, right = given.rpartition(sign) if sign == "=" else given.partition(sign)
    if not found or not left or not right:
        raise BadDefinition(option, f"{given!r} has not the form {form}", f"Write it as {form}.")
    return left, right


def shares_of(option: str, given: str) -> dict[str, float]:
    """Return the shares that `a=0.9,b=0.1` names."""
    pairs = [pair(option, each, "=", "ARM=SHARE") for each in given.split(",")]
    values = numbers(option, ",".join(share for _, share in pairs))
    named = dict(zip((name.strip() for name, _ in pairs), values, strict=True))
    if len(named) < len(pairs):
        raise BadDefinition(option, "a name comes twice", "Give each one share.")
    return named


def numbers(option: str, given: str) -> list[float]:
    """Return the numbers of a list with commas."""
    try:
        return [float(each) for each in given.split(",")]
    except ValueError as error:
        raise BadDefinition(option, f"{given!r} is no list of numbers", "Write it as 1,2.5,3.") from error

"""What does a step of a refresh answer?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Code = Literal["done", "refused", "again", "nothing"]
Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended, and the refresh's data with what the step added."""

    code: Code
    payload: Payload

"""What a check comes to: one thing that was looked at, in words for people, and if it is in order.

Checks only find; what is printed, and what the exit code is, comes after all of them. A check that fails itself is a
finding too: a doctor that dies of what it looks at helps nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "wrong"]
LONGEST_REASON = 400


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    `ok`: as it should be. `note`: it serves, but slower or otherwise than it could. `wrong`: the server does not start,
    or does not do what was asked for. `found` is the fact, `meaning` what follows from it, `next_step` what to do.
    """

    name: str
    verdict: Verdict
    found: str
    meaning: str = ""
    next_step: str = ""


def ok(name: str, found: str) -> Finding:
    """All is as it should be."""
    return Finding(name=name, verdict="ok", found=found)


def note(name: str, found: str, meaning: str = "", next_step: str = "") -> Finding:
    """It serves, but slower or otherwise than it could."""
    return Finding(name=name, verdict="note", found=found, meaning=meaning, next_step=next_step)


def wrong(name: str, found: str, meaning: str = "", next_step: str = "") -> Finding:
    """The server does not start, or does not do what was asked for."""
    return Finding(name=name, verdict="wrong", found=found, meaning=meaning, next_step=next_step)


def examine(name: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Make a check, whatever happens in it."""
    try:
        return check()
    except Exception as err:  # noqa: BLE001 - a check may come upon anything
        return [wrong(name, f"the check itself failed: {type(err).__name__}: {one_line(err)}")]


def one_line(err: BaseException | str) -> str:
    """Give what an error says, as one line that is not too long."""
    words = " ".join(str(err).split())
    return words if len(words) <= LONGEST_REASON else words[:LONGEST_REASON] + "…"

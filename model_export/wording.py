"""How a sentence names many things: the first few by name, the rest by number."""

from __future__ import annotations

from collections.abc import Iterable

MAX_NAMED = 8


def some(words: Iterable[str]) -> str:
    """The first words of a list, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more

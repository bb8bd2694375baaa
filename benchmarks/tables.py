"""Lays out a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: tuple[str, ...], rows: Sequence[Sequence[str]], *, left: frozenset[int] = frozenset({0})) -> str:
    """Lay out a table; the columns in `left` are aligned left, the others right."""
    rule = ["---" if index in left else "---:" for index in range(len(header))]
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *escaped))

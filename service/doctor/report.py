"""The findings as text for people, in lines of at most 100 columns, or as JSON for programs."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from service.doctor.finding import Finding

COLUMNS = 100
LONGEST_NAME = 22
VERDICT_WIDTH = 7


def write_text(findings: Sequence[Finding]) -> Iterator[str]:
    """Write each finding, then how many of each kind there are."""
    findings = [_clean(finding) for finding in findings]
    width = min(LONGEST_NAME, max((len(finding.name) for finding in findings), default=0))
    for finding in findings:
        yield from _write_finding(finding, width)
    counts = Counter(finding.verdict for finding in findings)
    yield ""
    yield f"{len(findings)} findings: {counts['ok']} ok, {counts['note']} to note, {counts['wrong']} wrong"


def write_json(findings: Sequence[Finding]) -> str:
    """Write them as a JSON list of objects, one a finding."""
    cleaned = [_clean(finding) for finding in findings]
    return msgspec.json.format(msgspec.json.encode(cleaned), indent=1).decode()


def _write_finding(finding: Finding, width: int) -> Iterator[str]:
    """Write the name and what was found beside it; below that what it means, and after an arrow what to do."""
    margin = " " * (VERDICT_WIDTH + width + 2)
    head = f"{finding.verdict:<{VERDICT_WIDTH}}{finding.name:<{width}}  "
    if len(finding.name) > width:
        yield head.rstrip()
        head = margin
    yield from _wrap(finding.found, head, margin)
    if finding.meaning:
        yield from _wrap(finding.meaning, margin, margin)
    if finding.next_step:
        yield from _wrap(finding.next_step, f"{margin}→ ", f"{margin}  ")


def _clean(finding: Finding) -> Finding:
    """Take out what is no letter to a terminal: names of files, and what libraries say, are not to be trusted."""
    return Finding(
        name=_make_printable(finding.name),
        verdict=finding.verdict,
        found=_make_printable(finding.found),
        meaning=_make_printable(finding.meaning),
        next_step=_make_printable(finding.next_step),
    )


def _make_printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _wrap(text: str, first: str, others: str) -> list[str]:
    """Break lines; a path or a command longer than a line stays whole, so that it can be copied."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )

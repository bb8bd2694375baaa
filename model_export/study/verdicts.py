"""What a claim comes to: a verdict, and the rule by which the verdicts on several networks make one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from model_export.pages import Chart, Table

Verdict = Literal["holds", "holds weakly", "does not hold here", "can not be said here"]

HOLDS: Final = "holds"
WEAKLY: Final = "holds weakly"
NOT_HERE: Final = "does not hold here"
NOT_SAID: Final = "can not be said here"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One claim, judged.

    Attributes:
        name: of its files and in the plan.
        title: a few words.
        claim: what the authors say.
        rule: by which numbers it is judged, with the thresholds.
        verdict: the result.
        sentence: the result in words, with the numbers.
        chart: what shows it.
        table: the numbers.
    """

    name: str
    title: str
    claim: str
    rule: str
    verdict: Verdict
    sentence: str
    chart: Chart
    table: Table


def grade(*, fully: bool, partly: bool) -> Verdict:
    """One network's verdict; what holds fully holds."""
    return HOLDS if fully else WEAKLY if partly else NOT_HERE


def name_verdict(title: str, verdict: Verdict) -> str:
    """A network with its own verdict, to begin what is said of it: where two differ, the reader sees which is which."""
    return f"{title} ({verdict})"


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """It holds where it holds for every network, and does not where it does for none; in between it holds weakly.

    Networks of which nothing can be said are left out.
    """
    said = {verdict for verdict in verdicts if verdict != NOT_SAID}
    if not said:
        return NOT_SAID
    if len(said) == 1:
        return said.pop()
    return WEAKLY

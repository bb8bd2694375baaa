"""The six claims: each file goes from outcomes to numbers, from numbers to a verdict, and shows both."""

from __future__ import annotations

from model_export.study.claims import gradients, initialisation, learning_rate, placement, single_instances, speed
from model_export.study.evidence import Evidence
from model_export.study.verdicts import Finding


def judge_all(evidence: Evidence) -> tuple[Finding, ...]:
    """Every claim, in the order of the page; the placement of one's own network can not be moved, so it is left out."""
    findings = (
        gradients.find(evidence),
        initialisation.find(evidence),
        learning_rate.find(evidence),
        speed.find(evidence),
        single_instances.find(evidence),
    )
    placed = evidence.study.placed
    return findings if placed is None else (*findings, placement.find(evidence, placed))

"""The report's page: which sections there are, in which order. Each section has a file of its own."""

from __future__ import annotations

import datetime as dt

from model_export.pages import Page, Section
from model_export.report.classes import classes_section
from model_export.report.comparison import comparison_section
from model_export.report.confusion import confusion_section
from model_export.report.distributions import distributions_section
from model_export.report.findings import Findings
from model_export.report.head import foot, lead
from model_export.report.learning import learning_section


def tell(findings: Findings, *, when: dt.datetime) -> Page:
    """The page that says what was found out. A network without BatchNorm has no sections about them."""
    run = findings.run
    labels = tuple(label if label.strip() else f"no. {number}" for number, label in enumerate(run.labels))
    return Page(
        title=f"Training report: {run.spec.options.network} on {run.data_name}",
        lead=lead(findings, when=when),
        sections=(
            learning_section(run),
            confusion_section(findings.scores, labels),
            classes_section(findings.scores, labels),
            *_batchnorm_sections(findings),
        ),
        foot=foot(),
    )


def _batchnorm_sections(findings: Findings) -> tuple[Section, ...]:
    if not findings.layers:
        return ()
    return distributions_section(findings.layers, findings.unreached), comparison_section(findings)

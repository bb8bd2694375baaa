"""The head of the training report: what was trained on what, when and how, and what it came to."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from dataclasses import fields
from typing import Any

from model_export.pages import Block, Facts, Note
from model_export.report.findings import Findings
from model_export.report.scores import wilson_interval

DIGITS_OF_DIGEST = 12
PRODUCERS = ("foldserve", "torch", "numpy", "scikit-learn", "matplotlib")


def lead(findings: Findings, *, when: dt.datetime) -> tuple[Block, ...]:
    """The verdict first, then the facts."""
    return _verdict(findings), _facts(findings, when)


def foot() -> str:
    """Which versions made the page."""
    return "Made with " + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PRODUCERS) + "."


def _verdict(findings: Findings) -> Note:
    scores, frozen = findings.scores, " with exact statistics frozen in" if findings.layers else ""
    low, high = wilson_interval(scores.num_right, scores.num_instances)
    return Note(
        f"{scores.num_right:,} of {scores.num_instances:,} held-out instances are put into the right class{frozen}. "
        f"On other instances like these expect {low:.4f} to {high:.4f} (95 % interval, Wilson).",
        label=f"Test accuracy {scores.accuracy:.4f}.",
        tone="good" if low > _chance(findings) else "mixed",
    )


def _chance(findings: Findings) -> float:
    """The accuracy of always answering with the most frequent class."""
    return float(findings.scores.support.max() / findings.scores.num_instances)


def _facts(findings: Findings, when: dt.datetime) -> Facts:
    run, source = findings.run, findings.run.source
    name = run.data_name if run.data_name == source.spec else f"{run.data_name}, from {source.spec}"
    target = f", target {source.target}" if source.target else ""
    shape = " × ".join(str(side) for side in run.spec.instance_shape)
    return Facts(
        (
            ("Data", f"{name}{target}, cut with seed {source.seed}"),
            ("Digest of the data", f"{run.data_sha256[:DIGITS_OF_DIGEST]}…"),
            ("Instances", f"{shape}, {len(run.labels)} classes"),
            ("Network", _spell(run.spec.options)),
            ("Options", _spell(run.options)),
            ("Best epoch", f"{run.best.epoch} of {len(run.history)}, valid accuracy {run.best.valid_accuracy:.4f}"),
            ("Majority class", f"{_chance(findings):.4f} of the held-out instances: what is right without looking"),
            ("Training ended", f"{when:%Y-%m-%d %H:%M %Z}".strip()),
        )
    )


def _spell(options: Any) -> str:
    """All that was chosen, by name; what does not apply is None and left out."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return ", ".join(_spell_one(name, value) for name, value in values.items() if value is not None)


def _spell_one(name: str, value: object) -> str:
    if name == "network":
        return str(value)
    words = "–".join(str(part) for part in value) if isinstance(value, tuple) else str(value)
    return f"{name.replace('_', ' ')} {words}"

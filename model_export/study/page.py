"""The study's report: the verdicts first, then each claim with its sentence, chart and table, and what it ran on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_export.pages import Code, Column, Facts, Note, Page, Section, Table, write_page, write_png
from model_export.pages.blocks import Block, Tone
from model_export.study.data import NUM_CALIBRATION, Data
from model_export.study.evidence import TRAINS_SHARE, Evidence
from model_export.study.need import Need, say
from model_export.study.readings import NUM_READ
from model_export.study.verdicts import HOLDS, NOT_HERE, NOT_SAID, WEAKLY, Finding

TONES: Final[dict[str, Tone]] = {HOLDS: "good", WEAKLY: "mixed", NOT_HERE: "bad", NOT_SAID: "plain"}
NEED_TONES: Final[dict[Need, Tone]] = {
    "needs BatchNorm": "good",
    "gains from BatchNorm": "mixed",
    "does not need BatchNorm": "plain",
}


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the numbers do not say: how the study was called, when, where, and how long it took."""

    command: str
    date: str
    machine: str
    versions: str
    seconds: float
    jobs: int


def write_report(
    out: Path, findings: Sequence[Finding], evidence: Evidence, data: Data, circumstances: Circumstances
) -> Path:
    """Write `report.html` and a PNG for each claim into the folder `out`, which must exist; return the page's path."""
    for finding in findings:
        write_png(out / f"{finding.name}.png", finding.chart)
    path = out / "report.html"
    write_page(path, make_page(findings, evidence, data, circumstances))
    return path


def make_page(findings: Sequence[Finding], evidence: Evidence, data: Data, circumstances: Circumstances) -> Page:
    """The whole page as a value."""
    own = evidence.study.single if evidence.study.placed is None else None
    subject = f"for {own.title}" if own else "on real data"
    return Page(
        title=f"The claims of Batch Normalization, tried {subject}",
        lead=(
            _question(evidence, data),
            *_need(evidence),
            _verdicts(findings),
            Code(circumstances.command),
        ),
        sections=(
            *(_section(finding) for finding in findings),
            *_not_tried(evidence),
            Section("How it was done", (_method(evidence), _facts(evidence, data, circumstances))),
        ),
        foot=f"Made by foldserve on {circumstances.date}.",
    )


def _question(evidence: Evidence, data: Data) -> str:
    return (
        f"Does Batch Normalization do on {data.name} what its authors found (Ioffe & Szegedy 2015)? The same seeds, "
        "the same batches, the same number of steps, with BatchNorm and without; medians of "
        f"{evidence.study.settings.repeats} repeats, and their range."
    )


def _verdicts(findings: Sequence[Finding]) -> Table:
    return Table(
        columns=(Column(""), Column("claim"), Column("here")),
        rows=tuple((str(number), finding.claim, finding.verdict) for number, finding in enumerate(findings, start=1)),
    )


def _section(finding: Finding) -> Section:
    blocks: tuple[Block, ...] = (
        finding.claim,
        Note(finding.sentence, label=finding.verdict, tone=TONES[finding.verdict]),
        finding.chart,
        finding.table,
        finding.rule,
    )
    return Section(finding.title, blocks)


def _need(evidence: Evidence) -> tuple[Note, ...]:
    """Said of one's own network only."""
    if evidence.study.placed is not None:
        return ()
    need, sentence = say(evidence, evidence.study.single)
    return (Note(sentence, label=need, tone=NEED_TONES[need]),)


def _not_tried(evidence: Evidence) -> tuple[Section, ...]:
    if evidence.study.placed is not None:
        return ()
    sentence = (
        f"Where BatchNorm stands in {evidence.study.single.title} is not moved here: this claim is tried on the "
        "networks of reference, when --network is left out."
    )
    return (Section("Placement", (sentence,)),)


def _method(evidence: Evidence) -> str:
    own = ":" in evidence.study.single.network
    weights = (
        "The network keeps the first weights that its factory gives it. Both arms see standardised input; in the one "
        "without, each BatchNorm is replaced by a learned shift, so that a layer without bias in front of it is not "
        "poorer. "
        if own
        else "First weights are Glorot's normal for tanh and the logistic function and He's for the others, biases 0, "
        "the same in both arms where the layers are the same; the input is standardised unless BatchNorm comes "
        "first; a layer in front of a BatchNorm has no bias, every other has one. "
    )
    return (
        "Plain SGD without momentum or decay, at a constant learning rate. "
        f"{weights}Where a claim is not about learning rates each arm has its best of the grid, chosen on the valid "
        "split; accuracies are told of the test split, by which no rate is chosen. With BatchNorm the network is asked "
        "in inference mode with exact statistics, over the whole training set at the end and over "
        f"{NUM_CALIBRATION:,} instances of it on the way, so that no moving average blurs the comparison. A run that "
        "diverges (a loss, gradient or answer that is no finite number) counts with the accuracy of chance. A setting "
        f"trains if its median is {TRAINS_SHARE:.0%} of the way from chance to the best accuracy of that network. "
        f"Single instances are asked about {NUM_READ:,} test instances at most. The rules and "
        "their thresholds stand in the code. They were written after a dozen single runs and before the first whole "
        "study, and were not changed since."
    )


def _facts(evidence: Evidence, data: Data, circumstances: Circumstances) -> Facts:
    settings, outcomes = evidence.study.settings, evidence.outcomes.values()
    num_diverged = sum(outcome.diverged_in is not None for outcome in outcomes)
    cpu_seconds = sum(outcome.cpu_seconds for outcome in outcomes)
    sizes = f"{len(data.train):,} training, {len(data.valid):,} valid and {len(data.test):,} test instances"
    runs = f"{len(outcomes)}, each of {settings.steps:,} steps with batches of {settings.batch_size}"
    call = f"this call took {circumstances.seconds:,.0f} s with {circumstances.jobs} processes"
    return Facts(
        (
            ("data", f"{data.name}: {sizes}, {data.num_classes} classes; chance is {data.chance:.3f}"),
            ("runs", f"{runs}; {num_diverged} diverged"),
            ("seeds", ", ".join(str(seed) for seed in range(settings.repeats))),
            ("learning rates", _numbers(settings.rates)),
            ("for tuning", _numbers(settings.tuning_rates)),
            ("weight scales", _numbers(settings.weight_scales)),
            ("time", f"{cpu_seconds:,.0f} CPU-seconds of training and measuring; {call}"),
            ("machine", circumstances.machine),
            ("versions", circumstances.versions),
        )
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)

"""Shows a fold to a person at a terminal: the ledger, the comparison, the latency, and the story of one BatchNorm."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from model_export.commands.present import show_ledger, where_to
from model_export.fold.check import Comparison
from model_export.fold.explain import Channel, Explanation
from model_export.fold.latency import Latency
from model_export.wording import some
from service.bundle import FoldReport

RUNTIME_FLOORS, RUNTIME_GROSS = 100, 1e-3  # more than any rounding: an optimiser that is wrong is off by percents


def show_fold(report: FoldReport, comparison: Comparison, latency: Latency | None, console: Console) -> None:
    """The ledger, how far the answers are from the original's, and what it is worth."""
    show_ledger(report, console)
    lines = [f"compared  {_compared(comparison)}", *_runtime_caution(comparison)]
    if latency is not None:
        lines.append(f"latency   {latency.before_us:.1f} µs before, {latency.after_us:.1f} µs after, one instance")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def show_explanation(story: Explanation, console: Console) -> None:
    """One BatchNorm: its place, its map, its worst channel, and what became of it."""
    entry = story.entry
    form = "" if entry.form == "BatchNormalization" else ", written as arithmetic by constants"
    console.print(f"[bold]{escape(entry.batchnorm)}[/]: {entry.outcome}{form}")
    lines = [
        f"outcome   {where_to(entry)}",
        f"reads     {story.reads}",
        f"read by   {some(story.read_by) or 'nothing'}",
        f"channels  {story.num_channels or 'not known: it has no map that is the same at every run'}",
    ]
    if entry.axis is not None:
        lines.append(f"axis      {entry.axis} of what it reads")
    if story.worst is not None:
        lines.append(f"worst     {_described_channel(story.worst)}; the smallest gain is {story.smallest_gain:.3g}")
    if entry.error is not None:
        lines.append(f"proved    in float64, on random data: largest difference {entry.error:.1e}")
    if entry.blocked_by:
        lines.append(f"blocked   by {some(entry.blocked_by)}")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _described_channel(channel: Channel) -> str:
    made_of = "" if channel.gamma is None else f"γ {channel.gamma:.4g}, σ² {channel.variance:.4g}, "
    return f"channel {channel.number}: {made_of}gain {channel.gain:.4g}, shift {channel.shift:.4g}"


def _compared(comparison: Comparison) -> str:
    if comparison.relative_difference is None:
        return f"not compared with the original: {comparison.not_compared}"
    floors = "" if comparison.in_noise_floors is None else f", {comparison.in_noise_floors:.1f} of its noise floors"
    return (
        f"largest difference {comparison.relative_difference:.1e} of the largest output{floors}, "
        "on random instances in ONNX Runtime, optimised and not"
    )


def _runtime_caution(comparison: Comparison) -> list[str]:
    """A word where ONNX Runtime's own optimiser changes the answers of the original."""
    found, floors = comparison.runtime_difference, comparison.noise_floor
    if found is None or floors is None or found <= RUNTIME_FLOORS * floors or found < RUNTIME_GROSS:
        return []
    caution = (
        f"caution   ONNX Runtime's own optimiser changes the answers of the original by {found:.1e} of the largest "
        "output, before any fold of ours: do not serve it optimised"
    )
    return [caution]

"""`statistics CHECKPOINT`: audits the moving averages of a trained network and says which statistics to export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_export.audit import AgainstExact, Audit, LayerAudit
from model_export.audit.trained import ALL, audit_trained
from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.commands.choices import choose, parse_bytes
from model_export.commands.progress import measuring_bar
from model_export.devices import find_device
from model_export.errors import StatisticsInvalid, first_line
from model_export.measuring import MeasuringOptions, Method, as_trained
from model_export.threads import threads_for
from service.device import Device

LEGEND = (
    "  |Δμ|/σ, σ ratio   ema against exact, at the worst channel\n"
    "  ema, exact, …     the residual that each leaves, over the training set\n"
    "  (0,1)             what the initial mean 0 and variance 1 still weigh in ema"
)
LONGEST_NAME = 24  # in a narrow terminal longer ones are folded first


@dataclass(frozen=True, kw_only=True)
class StatisticsCommand:
    """The command line's flags, by name, as they were typed."""

    checkpoint: Path
    samples: int | None
    batch_size: int
    cache_memory: str
    device: str
    json_path: Path | None
    quiet: bool


def run_statistics(command: StatisticsCommand, console: Console) -> Audit:
    """Measure, audit and show.

    Raises:
        ExportError: the checkpoint can not be read, a flag's value is not allowed, or nothing can be measured.
    """
    checkpoint = read_checkpoint(command.checkpoint)
    network, splits = load_network(checkpoint), load_splits_of(checkpoint)
    options = MeasuringOptions(
        samples=command.samples,
        batch_size=command.batch_size,
        cache_bytes=parse_bytes("--cache-memory", command.cache_memory),
        device=find_device(choose("--device", command.device, Device)),
    )
    trained = as_trained(checkpoint, network, splits)
    with (
        threads_for(network, splits.instance_shape, command.batch_size),
        measuring_bar(console, shown=not command.quiet) as tell,
    ):
        found, _ = audit_trained(trained, splits.valid, options, tell=tell)
    show_audit(found, console)
    if command.json_path is not None:
        _write(command.json_path, found)
    return found


def show_audit(audit: Audit, console: Console) -> None:
    """Each BatchNorm, each kind of statistics, what the channels warn of, and the advice."""
    subject = audit.subject
    part = "" if subject.num_instances == subject.num_training_instances else "a sample of "
    console.print(
        f"[bold]Statistics[/] over {part}{subject.num_instances} of {subject.num_training_instances} training "
        "instances: the moving average (ema) against what each BatchNorm really sees (exact)",
        soft_wrap=True,
    )
    if audit.layers:
        console.print(LEGEND, soft_wrap=True, highlight=False)
        console.print(_table_of_layers(audit.layers))
    console.print(_table_of_choices(audit))
    for caution in audit.cautions:
        console.print(f"  [yellow]caution[/]   {escape(caution)}", soft_wrap=True, highlight=False)
    console.print(f"[bold]Advice[/]: {escape(audit.advice)}", soft_wrap=True, highlight=False)


def _table_of_layers(layers: tuple[LayerAudit, ...]) -> Table:
    """Residuals are those of the mean or the variance, whichever is larger; in brackets is the worst channel."""
    columns = ("|Δμ|/σ", "σ ratio", *ALL, "(0,1)", "ε/σ²")
    table = Table("BatchNorm", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = min(LONGEST_NAME, max(len(layer.batchnorm) for layer in layers))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for layer in layers:
        table.add_row(
            escape(layer.batchnorm),
            *_against_exact(layer.against_exact),
            *(_residual(layer, method) for method in ALL),
            "-" if layer.initial_weight is None else f"{layer.initial_weight:.0%}",
            f"{layer.eps / layer.smallest_var:.0e}" if layer.smallest_var else "∞",
        )
    return table


def _residual(layer: LayerAudit, method: Method) -> str:
    found = layer.residuals.get(method)
    return "-" if found is None else f"{max(found.mean, found.variance):.0e}"


def _against_exact(found: AgainstExact | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return (
        f"{found.mean_shift:.3g} ({found.mean_shift_channel})",
        f"{found.std_ratio:.3g} ({found.std_ratio_channel})",
    )


def _table_of_choices(audit: Audit) -> Table:
    table = Table(
        "statistics", "validation accuracy", "loss", f"on {audit.num_valid} instances", box=SIMPLE_HEAD, pad_edge=False
    )
    for choice in audit.choices:
        numbers = [f"{number:.4f}" if number is not None else "-" for number in (choice.accuracy, choice.loss)]
        table.add_row(choice.method, *numbers, escape(choice.problem))
    return table


def _write(path: Path, audit: Audit) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(audit)) + b"\n")
    except OSError as err:
        raise StatisticsInvalid(f"--json {path}: can not be written: {first_line(err)}") from err

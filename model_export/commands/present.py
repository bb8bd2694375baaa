"""Shows a bundle to a person at a terminal: what was made, where each BatchNorm went, and how well it all agrees."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from model_export.wording import some
from service.bundle import (
    FoldReport,
    LedgerEntry,
    Manifest,
    ParityReport,
    PrecisionReport,
    Signature,
    StatisticsReport,
    TensorSpec,
)

MIN_WIDTH_OF_NAMES = 16  # in a narrow terminal the numbers' headings break first


def make_console(*, stderr: bool = False) -> Console:
    """A terminal to print on, where `:b:` in the name of a column or file stays what it is."""
    return Console(stderr=stderr, emoji=False)


def show_bundle(manifest: Manifest, console: Console) -> None:
    """The whole story of a bundle, in five parts, and a sixth one if it is not float32."""
    training = manifest.training
    console.print(f"[bold]{manifest.name}[/] version {manifest.version}, made {manifest.created}")
    course = f"{_epochs(training.num_epochs)}, {training.num_train} instances, seed {training.seed}"
    for line in (
        f"takes     {describe_instance(manifest.signature)}",
        f"answers   {len(manifest.signature.labels)} labels: {some(manifest.signature.labels)}",
        f"trained   {training.network} on {training.data}, {course}",
        f"accuracy  {training.test_accuracy:.4f} on {training.num_test} held-out instances, as served",
    ):
        console.print(f"  {escape(line)}", soft_wrap=True)
    show_statistics(manifest.statistics, manifest.signature, console)
    show_ledger(manifest.fold, console)
    show_parity(manifest.parity, console)
    if manifest.precision is not None:
        show_precision(manifest.precision, console)


def show_precision(report: PrecisionReport, console: Console) -> None:
    """A lower precision beside float32: what it costs, and what it saves."""
    console.print(f"[bold]Precision[/]: {report.name}, beside fp32, on {report.num_instances} held-out instances")
    table = Table()
    for column in ("", "accuracy", "labels as fp32", "largest difference of a score", "model"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("fp32", f"{report.fp32_accuracy:.4f}", "", "", _size(report.fp32_model_bytes))
    agreement, difference = f"{report.label_agreement:.2%}", f"{report.max_score_difference:.1e}"
    table.add_row(report.name, f"{report.accuracy:.4f}", agreement, difference, _size(report.model_bytes))
    if report.rounded_accuracy is not None and report.rounded_score_difference is not None:
        difference = f"{report.rounded_score_difference:.1e}"
        table.add_row(f"{report.name}, as a GPU rounds", f"{report.rounded_accuracy:.4f}", "", difference, "")
    console.print(table)
    for line in _about_precision(report):
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _about_precision(report: PrecisionReport) -> Iterable[str]:
    yield f"limit     {report.max_accuracy_drop:g} of accuracy may be lost"
    yield f"float32   stays in {some(report.float32_layers)}"
    if report.num_calibration_instances is not None:
        yield f"ranges    taken over {report.num_calibration_instances} training instances"
    if report.standardised:
        yield f"scaled    in float32: what {report.standardised} reads, each channel by itself"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1000:,.0f} kB"


def show_ledger(report: FoldReport, console: Console) -> None:
    """Every BatchNorm: into which layer, in which direction, or why it stays."""
    counts = {word: sum(entry.outcome == word for entry in report.entries) for word in ("folded", "merged", "kept")}
    if not report.entries:
        console.print("[bold]Fold ledger[/]: there is no BatchNorm in it, nothing is to be folded")
        return
    rest = "".join(f", {counts[word]} {word}" for word in ("merged", "kept") if counts[word])
    console.print(f"[bold]Fold ledger[/]: {counts['folded']} of {len(report.entries)} BatchNorms folded{rest}")
    table = Table("BatchNorm", "outcome", "where to, or why not")
    table.columns[0].overflow = "fold"
    for entry in report.entries:
        table.add_row(escape(entry.batchnorm), entry.outcome, escape(where_to(entry)))
    console.print(table)
    console.print(f"  nodes     {report.num_nodes_before} before, {report.num_nodes_after} after")


def show_statistics(report: StatisticsReport, signature: Signature, console: Console) -> None:
    """How the frozen statistics fit the training set, and which channels are dangerous."""
    console.print(f"[bold]Statistics[/]: {report.method}, over {_how_many(report)} training instances")
    table = Table()
    for column in ("BatchNorm", "channels", "values", "residual of mean", "of variance", "largest gain"):
        table.add_column(column, justify="left" if column == "BatchNorm" else "right")
    table.columns[0].overflow = "fold"
    table.columns[0].min_width = min(
        MIN_WIDTH_OF_NAMES, max((len(layer.batchnorm) for layer in report.layers), default=0)
    )
    for layer in report.layers:
        residuals = (_number(layer.residual_mean), _number(layer.residual_variance))
        counts = (str(layer.num_channels), str(layer.num_values or "-"))
        table.add_row(escape(layer.batchnorm), *counts, *residuals, f"{layer.max_gain:.3g}")
    console.print(table)
    if report.unreached:
        console.print(
            f"  [yellow]caution[/]   left alone, for forward never comes to them: {escape(some(report.unreached))}"
        )
    for number, layer in enumerate(report.layers):
        if layer.constant_channels:
            names = _channel_names(layer.constant_channels, signature if number == 0 else None)
            console.print(
                f"  [yellow]caution[/]   {escape(layer.batchnorm)}: {len(layer.constant_channels)} channels were "
                f"constant in training ({escape(some(names))}); another value there is amplified by up to "
                f"{layer.max_gain:.3g}",
                soft_wrap=True,
            )


def _how_many(report: StatisticsReport) -> str:
    everything = report.num_training_instances
    if everything is None or everything == report.num_instances:
        return str(report.num_instances)
    return f"a sample of {report.num_instances} of {everything}"


def show_parity(report: ParityReport, console: Console) -> None:
    """Served against trained."""
    console.print(
        f"[bold]Parity[/]: served on {report.provider} against the unfolded network in {report.reference_dtype}, "
        f"{report.num_instances} held-out instances",
        soft_wrap=True,
    )
    table = Table()
    for column in ("output", "largest difference", "mean difference", "tolerance"):
        table.add_column(column, justify="left" if column == "output" else "right")
    for output in report.outputs:
        numbers = (output.max_difference, output.mean_difference, output.tolerance)
        table.add_row(output.output, *(f"{number:.1e}" for number in numbers))
    console.print(table)
    console.print(f"  labels    agree for {report.label_agreement:.2%} of the instances")


def describe_instance(signature: Signature) -> str:
    """What one instance is, in one line."""
    if signature.features:
        return f"{len(signature.features)} features: {some(feature.name for feature in signature.features)}"
    return _describe_tensor(signature.input)


def _describe_tensor(spec: TensorSpec) -> str:
    return f"{spec.dtype} of shape {list(spec.shape)}"


def where_to(entry: LedgerEntry) -> str:
    """What became of one BatchNorm, as a phrase."""
    if entry.outcome == "kept":
        return entry.reason
    if entry.outcome == "merged":
        return f"into {', '.join(entry.into)}, which stays"
    if not entry.into:
        return "it changes nothing, and nothing had to take it"
    words = {"previous": "the layer before it", "next": "the layer behind it", "parallel": "the layer beside it"}
    through = f", through {', '.join(entry.path)}" if entry.path else ""
    return f"{entry.direction}: {', '.join(entry.into)}, {words.get(entry.direction, '')}{through}"


def _channel_names(channels: Iterable[int], signature: Signature | None) -> list[str]:
    """Channels of a first BatchNorm over a table are columns and have names; others have numbers."""
    columns = [
        f"{feature.name}={category}" if category else feature.name
        for feature in (signature.features if signature else ())
        for category in feature.categories or ("",)
    ]
    return [columns[channel] if channel < len(columns) else str(channel) for channel in channels]


def _epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"

"""The command line: `python -m model_export train | statistics | export | fold | diff | inspect | study | demo`.

Each command imports what it needs when it runs, so that `fold`, `diff` and `inspect` never wait for torch. What can go
wrong ends as one sentence on standard error and exit code 1; a traceback here is a defect.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from model_export.commands.present import make_console
from model_export.errors import ExportError
from model_export.ones_own import is_ones_own
from model_export.options import TrainingOptions
from service.errors import FoldserveError

app = typer.Typer(
    name="model_export",
    help="Train a network with Batch Normalization, freeze it, fold it, prove that nothing changed, bundle it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
DEFAULTS = TrainingOptions()


@app.command()
def train(  # noqa: PLR0913, PLR0917 - one argument for each flag
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="digits, fashion-mnist, a .csv, .parquet or .npz file, a folder with a subfolder a class, or your own "
            "LightningDataModule as package.module:name"
        ),
    ] = "digits",
    target: Annotated[str | None, typer.Option(help="for a table: the column that holds the class")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="for a table: a column to leave out; may be repeated")
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(help="for fashion-mnist: the folder with its four IDX files, if not where Debian puts them"),
    ] = None,
    network: Annotated[
        str,
        typer.Option(
            help="mlp, convnet, or your own as package.module:factory, called with (instance_shape, num_outputs)"
        ),
    ] = "mlp",
    placement: Annotated[
        str | None,
        typer.Option(
            help="where BatchNorm stands: first+after (mlp's default), first+before (convnet's), first, after, before "
            "or none"
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="elu (mlp's default), relu (convnet's), leaky_relu, gelu, silu, tanh, sigmoid")
    ] = None,
    hidden: Annotated[
        str | None,
        typer.Option(
            help="widths of the hidden layers, 300,100 (mlp's default); channels for a convnet, 16,32,64 (its default)"
        ),
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="share of values dropped before the last layer; 0 if not given")
    ] = None,
    momentum: Annotated[
        float | None,
        typer.Option(
            help="PyTorch's: new = (1 - momentum) * old + momentum * batch; 0.1 if not given. Keras' and ONNX' is the "
            "other share: their 0.99 is 0.01 here"
        ),
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="the number inside BatchNorm's root; 1e-5 if not given; Keras' is 1e-3")
    ] = None,
    epochs: Annotated[int, typer.Option(help="how often each instance is seen, at most")] = DEFAULTS.epochs,
    batch_size: Annotated[
        int, typer.Option(help="instances in a step of each process; of data of your own its loader decides")
    ] = DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(help="peak of the one-cycle schedule")] = DEFAULTS.learning_rate,
    weight_decay: Annotated[float, typer.Option(help="AdamW's")] = DEFAULTS.weight_decay,
    patience: Annotated[
        int | None, typer.Option(help="stop after so many epochs without a better valid accuracy; never if not given")
    ] = DEFAULTS.patience,
    seed: Annotated[
        int, typer.Option(help="of the splits, the first weights and the order of instances")
    ] = DEFAULTS.seed,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    precision: Annotated[str, typer.Option(help="32, or bf16 where autocast finds it safe")] = DEFAULTS.precision,
    devices: Annotated[
        int, typer.Option(help="processes on each machine, each with a GPU of its own, or on the CPU")
    ] = DEFAULTS.devices,
    num_nodes: Annotated[
        int, typer.Option(help="machines that train together; start the command on each of them, as with torchrun")
    ] = DEFAULTS.num_nodes,
    sync_batchnorm: Annotated[
        bool | None,
        typer.Option(
            "--sync-batchnorm/--no-sync-batchnorm",
            help="normalise with the batches of all processes together; if not given, where it can be, on GPUs",
        ),
    ] = DEFAULTS.sync_batchnorm,
    log: Annotated[
        str | None, typer.Option(help="csv or tensorboard: also write losses and learning rates into the run's folder")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="go on, as it was begun, with the run that left this last.ckpt; takes --device, --log, --no-report "
            "and --quiet"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for the checkpoints; runs/ and the data's name if not given")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a run that is there already")] = False,
    report: Annotated[
        bool,
        typer.Option("--report/--no-report", help="audit the moving averages and write report.html at the end"),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar")] = False,
) -> None:
    """Train a network; leaves best.ckpt, last.ckpt and report.html in a folder under runs/."""
    from model_export.commands.train import TrainCommand, run_train

    command = TrainCommand(
        data=data,
        target=target,
        ignore=tuple(ignore or ()),
        directory=directory,
        network=network,
        placement=placement,
        activation=activation,
        hidden=hidden,
        dropout=dropout,
        momentum=momentum,
        eps=eps,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        patience=patience,
        seed=seed,
        device=device,
        precision=precision,
        devices=devices,
        num_nodes=num_nodes,
        sync_batchnorm=sync_batchnorm,
        log=log,
        resume=resume,
        out=out,
        overwrite=overwrite,
        report=report,
        quiet=quiet,
    )
    _refuse_beside_resume(context)
    _refuse_beside_ones_own(context, data)
    with _interruptible():
        run_train(command, make_console())


def _refuse_beside_resume(context: typer.Context) -> None:
    """A resumed run goes on as it was begun: an option that would be passed over in silence is an error."""
    given = _given(context)
    beside = sorted(given - {"--resume", "--device", "--log", "--report", "--quiet"})
    if "--resume" in given and beside:
        raise ExportError(f"--resume goes on as the run was begun: {', '.join(beside)} can not be changed, drop it")


def _refuse_beside_ones_own(context: typer.Context, data: str) -> None:
    if is_ones_own(data) and "--batch-size" in _given(context):
        raise ExportError(f"--batch-size: {data} makes its batches itself: say it in its train_dataloader()")


def _given(context: typer.Context) -> set[str]:
    """The options that were said, as opposed to those that have their default value."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {
        f"--{name.replace('_', '-')}" for name, source in sources.items() if source and source.name == "COMMANDLINE"
    }


@app.command()
def statistics(  # noqa: PLR0913, PLR0917
    checkpoint: Annotated[Path, typer.Argument(help="the best.ckpt that `train` left")],
    samples: Annotated[
        int | None, typer.Option(help="measure over so many instances, drawn at random; over all if not given")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="instances in a batch; no result depends on it")] = 256,
    cache_memory: Annotated[
        str, typer.Option(help="memory for activations that the next BatchNorms are measured from; 0 for none")
    ] = "2GiB",
    device: Annotated[str, typer.Option(help="where the network runs: auto, cpu or cuda")] = "auto",
    json: Annotated[Path | None, typer.Option(help="write all that was found to this file, as JSON")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar")] = False,
) -> None:
    """Audit the moving averages of a trained network against what its BatchNorms really see, and say which to use."""
    from model_export.commands.statistics import StatisticsCommand, run_statistics

    command = StatisticsCommand(
        checkpoint=checkpoint,
        samples=samples,
        batch_size=batch_size,
        cache_memory=cache_memory,
        device=device,
        json_path=json,
        quiet=quiet,
    )
    with _interruptible():
        run_statistics(command, make_console())


@app.command()
def export(  # noqa: PLR0913, PLR0917
    checkpoint: Annotated[Path, typer.Argument(help="the best.ckpt that `train` left")],
    out: Annotated[Path, typer.Option(help="where the bundle goes: models/NAME/VERSION")],
    statistics: Annotated[
        str,
        typer.Option(
            help="exact: what each BatchNorm sees, measured front to back over the training set; precise: behind "
            "batch-normalised layers, in one pass; ema: the moving averages as trained"
        ),
    ] = "exact",
    samples: Annotated[
        int | None, typer.Option(help="measure over so many instances, drawn at random; over all if not given")
    ] = None,
    cache_memory: Annotated[
        str, typer.Option(help="memory for activations that the next BatchNorms are measured from; 0 for none")
    ] = "2GiB",
    device: Annotated[str, typer.Option(help="what the bundle is verified on: auto, cpu or cuda")] = "auto",
    precision: Annotated[
        str,
        typer.Option(
            help="what the model computes in: fp32; fp16; bf16, on GPUs only; int8, with ranges from the training set. "
            "Applied after the fold; inputs and outputs stay float32"
        ),
    ] = "fp32",
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="how much held-out accuracy a lower --precision may cost before it is refused; 0.01 if not given"
        ),
    ] = None,
    raw: Annotated[Path | None, typer.Option(help="also keep the ONNX graph before folding, in this file")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace a bundle that is there already")] = False,
) -> None:
    """Freeze, export, fold, verify, and write a bundle that the service reads."""
    from model_export.commands.export import run_export

    run_export(
        checkpoint,
        out,
        make_console(),
        statistics=statistics,
        samples=samples,
        cache_memory=cache_memory,
        device=device,
        raw_path=raw,
        overwrite=overwrite,
        precision=precision,
        max_accuracy_drop=max_accuracy_drop,
    )


@app.command()
def fold(  # noqa: PLR0913, PLR0917
    source: Annotated[Path, typer.Argument(metavar="IN.onnx", help="any ONNX model with BatchNorms in it")],
    target: Annotated[Path | None, typer.Argument(metavar="OUT.onnx", help="where the folded model goes")] = None,
    report: Annotated[
        Path | None, typer.Option(help="write the ledger, the comparison and the latency to this file, as JSON")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="tell the story of the BatchNorm of this name; without OUT.onnx, nothing else")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="leave BatchNorms whose name fits this pattern (layer1.*); may be repeated")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="fold no BatchNorms but those that fit this pattern; may be repeated")
    ] = None,
    check_only: Annotated[bool, typer.Option("--check-only", help="fold and compare, write no model")] = False,
) -> None:
    """Fold the BatchNorms of any ONNX model into the layers around them, each fold proved; needs no torch."""
    from model_export.commands.fold import FoldRequest, run_fold
    from model_export.fold.selection import Selection

    if target is None and not check_only and explain is None:
        raise ExportError("OUT.onnx is missing: name the file for the folded model, or say --check-only")
    if target is not None and check_only:
        raise ExportError(f"--check-only writes no model: drop it, or drop {target}")
    request = FoldRequest(
        source=source,
        target=target,
        report_path=report,
        explained=explain,
        selection=Selection(keep=tuple(keep or ()), only=tuple(only or ())),
    )
    run_fold(request, make_console())


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="A.onnx", help="any ONNX model")],
    second: Annotated[Path, typer.Argument(metavar="B.onnx", help="one with the same inputs, such as A.onnx folded")],
) -> None:
    """Name the first tensor where two ONNX models part; ends with 1 if they do, with 0 if they answer alike."""
    from model_export.commands.diff import run_diff

    if run_diff(first, second, make_console()):
        raise typer.Exit(1)


@app.command()
def inspect(bundle: Annotated[Path, typer.Argument(help="a bundle: models/NAME/VERSION")]) -> None:
    """Show what a bundle is: signature, training, statistics, fold ledger, parity. Its digests are checked."""
    from model_export.commands.present import show_bundle
    from service.bundle import read_bundle

    show_bundle(read_bundle(bundle).manifest, make_console())


@app.command()
def study(  # noqa: PLR0913, PLR0917
    data: Annotated[
        str | None,
        typer.Option(help="as for `train`; fashion-mnist where its files are, else digits, if not given"),
    ] = None,
    target: Annotated[str | None, typer.Option(help="for a table: the column that holds the class")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="for a table: a column to leave out; may be repeated")
    ] = None,
    directory: Annotated[str | None, typer.Option(help="for fashion-mnist: the folder with its four IDX files")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="mlp, convnet, or your own as package.module:factory, to see whether it needs BatchNorm; the study's "
            "own networks if not given"
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="fewer steps and settings on less data: minutes, and rough")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="processes that train at the same time; one a core if not given")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for results, report and charts; under runs/ if not given")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress bar")] = False,
) -> None:
    """Try the claims of Batch Normalization on real data; the same command again goes on where it was stopped."""
    from model_export.commands.study import StudyCommand, run_study

    command = StudyCommand(
        data=data,
        target=target,
        ignore=tuple(ignore or ()),
        directory=directory,
        network=network,
        quick=quick,
        jobs=jobs,
        out=out,
        quiet=quiet,
    )
    with _interruptible():
        run_study(command, make_console())


@app.command()
def demo(
    models: Annotated[Path, typer.Option(help="the root that the bundle digits/1 is written to")] = Path("models"),
    runs: Annotated[Path, typer.Option(help="the folder that the checkpoints are written to")] = Path("runs"),
) -> None:
    """The whole path on scikit-learn's digits: train, freeze, export, fold, verify, serve, predict."""
    from model_export.commands.demo import run_demo

    with _interruptible():
        run_demo(models, runs, make_console())


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say how to go on after Ctrl-C: Typer would end with 130 too, but in silence."""
    try:
        yield
    except KeyboardInterrupt as err:
        make_console(stderr=True).print(f"\n{escape(str(err) or 'interrupted')}", soft_wrap=True, highlight=False)
        raise typer.Exit(getattr(err, "exit_code", 130)) from err


def main() -> None:
    """Run the command line; what foldserve can explain ends as one sentence."""
    try:
        app()
    except FoldserveError as err:
        make_console(stderr=True).print(f"[bold red]error:[/] {escape(str(err))}", soft_wrap=True, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()

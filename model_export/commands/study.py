"""`study`: shows whether Batch Normalization does on data what its authors found, and whether a network needs it."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model_export.data import DataSource, load_splits
from model_export.data.idx import DEBIAN_DIR
from model_export.errors import StudyInvalid
from model_export.study.claims import judge_all
from model_export.study.conduct import Watch, conduct
from model_export.study.data import draw_data
from model_export.study.evidence import Evidence
from model_export.study.machine import describe_machine, describe_versions
from model_export.study.need import say
from model_export.study.page import Circumstances, write_report
from model_export.study.plan import FULL, QUICK, distinct, own_subject, plan_trials, study_of
from model_export.study.store import NAME
from model_export.study.trials import Settings, Trial
from model_export.study.verdicts import HOLDS, WEAKLY, Finding


@dataclass(frozen=True, kw_only=True)
class StudyCommand:
    """The command line's flags, by name, as they were typed."""

    data: str | None = None
    target: str | None = None
    ignore: tuple[str, ...] = ()
    directory: str | None = None
    network: str | None = None
    quick: bool = False
    jobs: int | None = None
    out: Path | None = None
    quiet: bool = False


class StudyInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with a sentence that says how to go on; `exit_code` is 128 and the signal's number."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


def run_study(command: StudyCommand, console: Console, *, settings: Settings | None = None) -> tuple[Finding, ...]:
    """Run the study, or what is left of it; leave its results, its report and its charts in a folder.

    Args:
        command: what was asked for.
        console: where verdicts and progress are shown.
        settings: how thorough; None is as the command says, full or quick.

    Raises:
        ExportError: a flag's value is not allowed, or a room refused.
        StudyInterrupted: Ctrl-C was pressed.
    """
    start = time.perf_counter()
    settings = settings or (QUICK if command.quick else FULL)
    jobs = _jobs(command)
    study = study_of(settings, own_subject(command.network) if command.network else None)
    source = _source(command)
    data = draw_data(load_splits(source), settings)
    out = command.out or Path("runs") / f"study-{data.name}"
    trials = distinct(plan_trials(study))
    console.print(f"{len(trials)} runs on {escape(data.name)}, kept in {escape(str(out / NAME))}", soft_wrap=True)
    with _going_on(), _progress(console, shown=not command.quiet) as watch:
        evidence = conduct(study, data, out, jobs=jobs, watch=watch)
    findings = judge_all(evidence)
    circumstances = Circumstances(
        command=_spell(command),
        date=datetime.now(UTC).date().isoformat(),
        machine=describe_machine(),
        versions=describe_versions(),
        seconds=time.perf_counter() - start,
        jobs=jobs,
    )
    path = write_report(out, findings, evidence, data, circumstances)
    show_findings(findings, evidence, console)
    console.print(f"Report: {escape(str(path))}", soft_wrap=True)
    return findings


def show_findings(findings: tuple[Finding, ...], evidence: Evidence, console: Console) -> None:
    """One claim, verdict and sentence after the other; last, whether one's own network needs BatchNorm."""
    for number, finding in enumerate(findings, start=1):
        colour = {HOLDS: "green", WEAKLY: "yellow"}.get(finding.verdict, "red")
        console.print(f"[bold]{number} {finding.title}[/]: [{colour}]{finding.verdict}[/]", soft_wrap=True)
        console.print(f"  {escape(finding.sentence)}", soft_wrap=True, highlight=False)
    if evidence.study.placed is None:
        need, sentence = say(evidence, evidence.study.single)
        console.print(f"[bold]Your network {need}[/]: {escape(sentence)}", soft_wrap=True, highlight=False)
        console.print("Placement is tried on the networks of reference only, without --network.", soft_wrap=True)


def _jobs(command: StudyCommand) -> int:
    if command.jobs is not None and command.jobs < 1:
        raise StudyInvalid(f"--jobs is {command.jobs}: expected 1 process or more")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return command.jobs or cores or 1


def _source(command: StudyCommand) -> DataSource:
    """Fashion-MNIST where its files are, unless other data is named; else the digits."""
    spec = command.data or ("fashion-mnist" if command.directory or DEBIAN_DIR.is_dir() else "digits")
    return DataSource(spec=spec, target=command.target, ignore=command.ignore, directory=command.directory)


def _spell(command: StudyCommand) -> str:
    """The command as it can be typed again, but for what changes no result."""
    options = {
        "data": command.data,
        "target": command.target,
        "directory": command.directory,
        "network": command.network,
        "out": str(command.out) if command.out else None,
    }
    words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
    ignored = [word for column in command.ignore for word in ("--ignore", column)]
    quick = ["--quick"] if command.quick else []
    return shlex.join(["python", "-m", "model_export", "study", *words, *ignored, *quick])


@contextmanager
def _progress(console: Console, *, shown: bool) -> Iterator[Watch | None]:
    """A bar that is as long as the missing runs are expected to take."""
    if not shown:
        yield None
        return
    columns = (BarColumn(), TextColumn("{task.fields[runs]} runs left"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, runs=0)

        def begin(missing: Sequence[Trial]) -> None:
            bar.update(task, total=sum(trial.cost for trial in missing), runs=len(missing))

        def done(trial: Trial) -> None:
            bar.update(task, advance=trial.cost, runs=bar.tasks[task].fields["runs"] - 1)

        yield Watch(begin=begin, done=done)


@contextmanager
def _going_on() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a sentence that says how to go on; the runs that are done are in the file."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with suppress(ValueError):  # outside the main thread no handler can be set
            signal.signal(signal.SIGTERM, _terminate)
        yield
    except KeyboardInterrupt as err:
        number = signal.SIGTERM if isinstance(err, _Terminated) else signal.SIGINT
        raise StudyInterrupted(
            "interrupted: run the same command again, it goes on with the runs that are missing", exit_code=128 + number
        ) from err
    finally:
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, handler)


def _terminate(*_: object) -> None:
    raise _Terminated

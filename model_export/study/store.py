"""The results file: what was run stays, so a study that is stopped goes on where it was.

results.jsonl, UTF-8, one JSON object a line:

    {"format_version": 1, "data_name": …, "data_sha256": …, "batch_size": …, "network_sha256": …}      once, first
    {"trial": {…}, "diverged_in": …, "curve": […], …, "cpu_seconds": …}                           one for each outcome

Each line is written whole and flushed. A last line without its end, which a power cut leaves, is dropped. What the
first line does not say the same of is another study, and refused.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from model_export.errors import StudyInvalid, first_line
from model_export.study.trials import Outcome, Trial

FORMAT_VERSION = 1
NAME = "results.jsonl"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What all outcomes of a file have in common, and what no trial says.

    `network_sha256` is of one's own network as its factory returns it: a factory that was changed is another study.
    """

    data_name: str
    data_sha256: str
    batch_size: int
    network_sha256: str = ""
    format_version: int = FORMAT_VERSION


@dataclass(kw_only=True)
class Results:
    """An open results file, and what is in it. `add` is the only way in."""

    path: Path
    stream: BinaryIO
    outcomes: dict[Trial, Outcome] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Write an outcome to the end of the file, at once."""
        self.stream.write(msgspec.json.encode(outcome) + b"\n")
        self.stream.flush()
        self.outcomes[outcome.trial] = outcome


@contextmanager
def open_results(out: Path, header: Header) -> Iterator[Results]:
    """The results in the folder `out`, which is made if need be; no other study writes there meanwhile.

    Raises:
        StudyInvalid: the file belongs to another study, is damaged, in use, or can not be written.
    """
    path = out / NAME
    with _open(path) as stream:
        _lock(path, stream)
        lines = _whole_lines(stream)
        if lines:
            _check_header(path, lines[0], header)
        else:
            stream.write(msgspec.json.encode(header) + b"\n")
            stream.flush()
        outcomes = (_decode(path, number, line) for number, line in enumerate(lines[1:], start=2))
        yield Results(path=path, stream=stream, outcomes={outcome.trial: outcome for outcome in outcomes})


def _open(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path.open("r+b")
    except OSError as err:
        raise StudyInvalid(f"{path} can not be written: {first_line(err)}: choose another --out") from err


def _lock(path: Path, stream: BinaryIO) -> None:
    """The system gives the lock back when the file is closed, however the process ends."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        raise StudyInvalid(f"another study writes to {path}: wait until it is over, or choose another --out") from err


def _whole_lines(stream: BinaryIO) -> list[bytes]:
    """The lines that are complete; the file ends behind them afterwards, and so does its reader."""
    content = stream.read()
    end = content.rfind(b"\n") + 1
    stream.truncate(end)
    stream.seek(end)
    return content[:end].splitlines()


def _check_header(path: Path, line: bytes, expected: Header) -> None:
    remedy = "choose another --out, or move that file away"
    try:
        found = msgspec.json.decode(line, type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise StudyInvalid(f"{path} is no results file of a study ({first_line(err)}): {remedy}") from err
    wanted = msgspec.to_builtins(expected)
    for name, value in wanted.items():
        if found.get(name) != value:
            raise StudyInvalid(
                f"{path} holds the results of another study: expected {name} {value!r}, found {found.get(name)!r}; "
                f"{remedy}"
            )


def _decode(path: Path, number: int, line: bytes) -> Outcome:
    try:
        return msgspec.json.decode(line, type=Outcome)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise StudyInvalid(
            f"{path}, line {number}: expected the outcome of a trial ({first_line(err)}): delete that line, or "
            "choose another --out"
        ) from err

"""The log of a process, opened once at its start and closed at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TextIO

from service.logs.access import PER_SECOND, AccessLog
from service.logs.formats import line_writer
from service.logs.line_file import LineFile
from service.logs.records import RecordHandler, capturing

LogFormat = Literal["json", "text", "off"]


@dataclass(frozen=True)
class Logs:
    """The log: its file, what is said of requests, and what of everything else."""

    file: LineFile
    access: AccessLog
    records: RecordHandler

    @property
    def num_dropped(self) -> int:
        """How many lines nobody took in time."""
        return self.file.num_dropped

    @property
    def num_left_out(self) -> int:
        """How many lines were more than may be written in a second."""
        return self.access.num_left_out + self.records.num_left_out


@contextmanager
def logging_to(
    stream: TextIO | None, form: LogFormat, *, sample: float, per_second: int = PER_SECOND
) -> Iterator[Logs | None]:
    """Log to a stream; None if that is off, or if the process was started without that stream.

    At the end it waits for at most `CLOSE_SECONDS` until all is written.
    """
    if form == "off" or stream is None:
        yield None
        return
    file = LineFile(stream.fileno(), line_writer(form))
    records = RecordHandler(file.put)
    try:
        with capturing(records):
            yield Logs(file, AccessLog(file, sample=sample, per_second=per_second), records)
    finally:
        file.close()

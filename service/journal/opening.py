"""Opens the journal of one process as its settings want it, and Python's logging with it; in the end closes both."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from service.journal.access import AccessLog, Format
from service.journal.journal import Journal
from service.journal.lines import Lines
from service.journal.records import LinesHandler, tell_dropped
from service.journal.spans import Spans, open_spans
from service.settings import Settings


@contextmanager
def open_journal(settings: Settings) -> Iterator[Journal]:
    """Open the log, to stderr, and the traces.

    Raises:
        SettingsInvalid: traces are wanted, and OpenTelemetry's packages are not installed.
    """
    spans = None if settings.traces is None else open_spans(settings.traces, settings.trace_sample)
    try:
        if settings.log == "off":
            yield Journal(None, spans)
        else:
            with _logging(settings.log) as lines:
                yield Journal(AccessLog(lines, settings.log_sample, settings.log), spans)
    finally:
        _close(spans)


@contextmanager
def _logging(style: Format) -> Iterator[Lines]:
    """Write to stderr what the rooms say by Python's logging."""
    lines = Lines(sys.stderr.fileno(), partial(tell_dropped, style))
    handler, root = LinesHandler(lines, style), logging.getLogger()
    ours, level = logging.getLogger("service"), logging.getLogger("service").level
    ours.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        ours.setLevel(level)
        lines.close()


def _close(spans: Spans | None) -> None:
    if spans is not None:
        spans.close()

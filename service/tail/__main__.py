"""Prints a running server's tail report as a table: `python -m service.tail http://127.0.0.1:8000`."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

import msgspec

from service.tail.report import SlowRequest, TailReport

PATH = "/tail-report"
PATIENCE_SECONDS = 10.0
EXIT_FAILURE = 1
EXIT_USAGE = 2
COLUMNS = ("answered at", "model", "status", "µs", "waited at most", "main cause", "because")
TO_THE_RIGHT = {"status", "µs", "waited at most"}


def main(arguments: Sequence[str]) -> int:
    """Ask the server for its report and print it; return the exit code."""
    if len(arguments) != 1 or not arguments[0].startswith(("http://", "https://")):
        return _fail("expected the server's address, as in: python -m service.tail http://127.0.0.1:8000", EXIT_USAGE)
    url = arguments[0].rstrip("/") + PATH
    try:
        report = msgspec.json.decode(_ask(url), type=TailReport)
    except urllib.error.HTTPError as err:
        return _fail(f"{url} answers {err.code}: {_read_error(err)}", EXIT_FAILURE)
    except OSError as err:
        return _fail(f"{url} does not answer: {err}", EXIT_FAILURE)
    except msgspec.DecodeError as err:
        return _fail(f"{url} does not answer with a tail report: {err}", EXIT_FAILURE)
    sys.stdout.write("".join(f"{line}\n" for line in write_table(report)))
    return 0


def write_table(report: TailReport) -> Iterator[str]:
    """Write a report as lines of text."""
    usual = ", ".join(f"{model} {us:,.0f} µs" for model, us in report.usual_us.items()) or "not known yet"
    yield report.summary
    yield f"process {report.pid}: {report.predictions:,} predictions since {report.since}; usual: {usual}"
    yield report.note
    if report.slowest:
        yield ""
        yield from _align([COLUMNS, *map(_row, report.slowest)])


def _row(slow: SlowRequest) -> tuple[str, ...]:
    numbers = (f"{slow.us:,.0f}", f"{slow.waited_us:,.0f}")
    return (slow.at, slow.model, str(slow.status), *numbers, slow.main_cause, slow.because)


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(COLUMNS, row, widths, strict=True)
        line = (cell.rjust(width) if name in TO_THE_RIGHT else cell.ljust(width) for name, cell, width in cells)
        yield "  ".join(line).rstrip()


def _ask(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as response:  # noqa: S310 - http, as `main` has seen
        content: bytes = response.read()
        return content


def _read_error(answer: urllib.error.HTTPError) -> str:
    with answer:
        content = answer.read()
    try:
        return str(msgspec.json.decode(content, type=dict[str, str])["error"])
    except (msgspec.DecodeError, KeyError):
        return answer.reason


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"foldserve: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

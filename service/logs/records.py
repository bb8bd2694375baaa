"""What modules say by the standard library's `logging`, uvicorn's and warnings included, as lines of the same log.

No lock is taken, and nothing is written here: whoever logs goes on at once, and may be anywhere, a signal handler too.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from service.logs.formats import Line
from service.logs.remarks import Remark, cut
from service.logs.throttle import Throttle

PER_SECOND = 100
MAX_MESSAGE = 1000
MAX_FRAMES = 50


class RecordHandler(logging.Handler):
    """Hands records on as remarks, to a limit a second."""

    def __init__(self, put: Callable[[Line], None], *, per_second: int = PER_SECOND) -> None:
        super().__init__()
        self._throttle = Throttle(put, per_second)

    @property
    def num_left_out(self) -> int:
        """How many records were more than the limit."""
        return self._throttle.num_left_out

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand a record on, if no filter keeps it; without the lock that handlers take."""
        found: Any = self.filter(record)
        if found:
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on."""
        self._throttle.put(_to_remark(record), time.perf_counter())


def _to_remark(record: logging.LogRecord) -> Remark:
    return Remark(
        at=int(record.created * 1e9),
        level=record.levelname.lower(),
        event="log",
        message=cut(_message_of(record), MAX_MESSAGE),
        logger=record.name,
        failure=_failure_of(record),
    )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - what was said is worth more than how
        return str(record.msg)


def _failure_of(record: logging.LogRecord) -> traceback.TracebackException | None:
    """Keep of an exception what its traceback says, and not its frames: those hold requests."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    kind, error, trace = record.exc_info
    return traceback.TracebackException(kind, error, trace, limit=-MAX_FRAMES, lookup_lines=False, compact=True)


@contextmanager
def capturing(handler: logging.Handler) -> Iterator[None]:
    """Give all records, and warnings, to a handler."""
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)

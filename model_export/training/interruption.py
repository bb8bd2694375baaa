"""Ctrl-C and SIGTERM: a run ends at once, says how to go on, and leaves the signals as they were."""

from __future__ import annotations

import contextlib
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from model_export.run_folder import LAST


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, with a sentence that says how to go on. No Exception, so that nothing swallows it.

    `exit_code` is what a process that ends of it reports: 128 and the signal's number.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which Lightning would take for a run that ended well."""


@contextlib.contextmanager
def resumable(run_dir: Path, can_be_resumed: Callable[[], bool]) -> Iterator[None]:
    """Lightning turns Ctrl-C into `sys.exit(1)` and leaves Ctrl-C switched off: undo both, and say how to go on.

    Raises:
        TrainingInterrupted: in the place of what Lightning makes of a signal.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        heed_sigterm()
        yield
    except (KeyboardInterrupt, SystemExit) as err:
        if not isinstance(err, KeyboardInterrupt) and not isinstance(err.__context__, KeyboardInterrupt):
            raise
        again = f"go on with --resume {shlex.quote(str(run_dir / LAST))}"
        way = again if can_be_resumed() else "no epoch was complete: start again"
        terminated = isinstance(err, _Terminated) or isinstance(err.__context__, _Terminated)
        number = signal.SIGTERM if terminated else signal.SIGINT
        raise TrainingInterrupted(f"interrupted: {way}", exit_code=128 + number) from err
    finally:
        with contextlib.suppress(ValueError):  # there, none was changed either
            for number, handler in handlers.items():
                signal.signal(number, handler)


def heed_sigterm() -> None:
    """Let SIGTERM end the run; to be said again when Lightning has set its own handler.

    Lightning's tells the other processes from within the handler, by a broadcast that they do not wait for: all hang.
    """
    with contextlib.suppress(ValueError):  # outside the main thread no handler can be set
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(*_: object) -> None:
    raise _Terminated

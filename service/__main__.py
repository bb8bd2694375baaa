"""The command line: `python -m service --models models` checks what there is, says so, and serves until SIGTERM.

`python -m service doctor` says why it would not. The word `serve` may stand in front, as SageMaker puts it there.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings

DOCTOR = "doctor"
EXIT_FAILURE, EXIT_USAGE = 1, 2
BACKLOG = 2048  # as uvicorn's


def main(arguments: Sequence[str]) -> int:
    """Serve, or have the doctor look why that would not go well; return the exit code."""
    if arguments[:1] == [DOCTOR]:
        from service.doctor.command import main as diagnose

        return diagnose(arguments[1:])
    return _read_and_serve(arguments)


def _read_and_serve(arguments: Sequence[str]) -> int:
    # Not at the top: the doctor has to run where ONNX Runtime is missing, or half installed.
    from service.errors import SettingsInvalid
    from service.settings import read_settings

    try:
        settings = read_settings(arguments)
    except SettingsInvalid as err:
        return _fail(str(err), EXIT_USAGE)
    try:
        listener = _bind(settings)
    except OSError as err:
        return _fail(f"can not listen on {settings.host}, port {settings.port}: {err.strerror}", EXIT_FAILURE)
    with listener:
        return _serve(settings, listener)


def _take_descriptors() -> None:
    """Take as many file descriptors as this user may: the usual limit of 1024 is less than the connections allowed."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(settings: Settings, listener: socket.socket) -> int:
    _take_descriptors()
    from service.server import serve
    from service.workers import Workers

    if settings.workers == 1:
        return serve(settings, listener, lambda: None)
    try:
        counts = tempfile.TemporaryDirectory(prefix="foldserve-counts-", ignore_cleanup_errors=True)
    except OSError as err:
        return _fail(
            f"several workers put their metrics together in a temporary directory, and there is none to write to "
            f"({err.strerror}): name one by TMPDIR, or serve with one worker",
            EXIT_FAILURE,
        )
    with counts as directory:
        return Workers(partial(serve, shared=Path(directory)), settings, listener).run()


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)  # now, so that of two servers on one port the second one knows
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _fail(message: str, code: int) -> int:
    from service.complaints import complain

    complain(message)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

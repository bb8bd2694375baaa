"""The command line: `python -m service --models models` checks what there is, says so, and serves until SIGTERM."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from service.errors import SettingsInvalid
from service.server import EXIT_FAILURE, complain, serve
from service.settings import Settings, read_settings
from service.workers import Workers

EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Serve; return the exit code."""
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


def _serve(settings: Settings, listener: socket.socket) -> int:
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
    except OSError:
        listener.close()
        raise
    listener.set_inheritable(True)
    return listener


def _fail(message: str, code: int) -> int:
    complain(message)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

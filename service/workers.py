"""Several processes that share one port: each loads the models for itself, and nothing passes between them.

The first worker goes ahead: what can not be served fails once, and not once for each of them. A worker that dies
later is replaced.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from socket import socket

from service.complaints import complain
from service.settings import Settings

# What a worker does: serve until it is told to stop, call the function (if any) once ready, return the exit code.
Work = Callable[[Settings, socket, Callable[[], None] | None], int]

RESTART_PAUSE_SECONDS = 1.0
spawn = multiprocessing.get_context("spawn")


class Workers:
    """The processes of one server, seen from their parent."""

    def __init__(self, work: Work, settings: Settings, listener: socket) -> None:
        self._work = work
        self._settings = settings
        self._listener = listener
        self._processes: list[SpawnProcess] = []
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        code = self._start_first()
        if code:
            return code
        for _ in range(self._settings.workers - 1):
            self._start()
        return self._watch()

    def _start_first(self) -> int:
        reader, writer = spawn.Pipe(duplex=False)
        process = self._start(writer)
        writer.close()
        with reader:
            try:
                reader.recv()
            except EOFError:  # it ended without a word to us
                process.join()
                return 0 if self._stopping else process.exitcode or 1
        return 0

    def _start(self, ready: Connection | None = None) -> SpawnProcess:
        process = spawn.Process(target=_run_worker, args=(self._work, self._settings, self._listener, ready))
        process.start()
        self._processes.append(process)
        if self._stopping:
            process.terminate()
        return process

    def _watch(self) -> int:
        while self._processes:
            wait([process.sentinel for process in self._processes])
            for process in [process for process in self._processes if not process.is_alive()]:
                self._processes.remove(process)
                self._replace(process)
        return 0

    def _replace(self, dead: SpawnProcess) -> None:
        if self._stopping:
            return
        complain(f"a worker died (exit code {dead.exitcode}): starting another one")
        time.sleep(RESTART_PAUSE_SECONDS)  # one that dies at once must not eat the machine
        self._start()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._processes:
            process.terminate()


def _run_worker(work: Work, settings: Settings, listener: socket, ready: Connection | None) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    sys.exit(work(settings, listener, None if ready is None else lambda: ready.send(True)))


def _end_with_parent() -> None:
    """Where the parent was killed nobody stops the workers, and they would hold the port: so they end by themselves."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

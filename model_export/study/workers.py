"""Runs trials in processes of their own, one a core, each with torch on one thread.

A trial draws all that it draws from its own seed, so what comes of it depends neither on the process that runs it nor
on what ran there before: only the order in which outcomes arrive does.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import torch

from model_export.errors import StudyInvalid
from model_export.study.course import run_trial
from model_export.study.data import Data
from model_export.study.trials import Outcome, Trial

_held: list[tuple[Data, int]] = []  # in a worker: what its trials share, put there once when it starts


def run_trials(trials: Sequence[Trial], data: Data, *, batch_size: int, jobs: int) -> Iterator[Outcome]:
    """The outcomes, as they come, of `jobs` processes; with one job, of this process, in the order of the trials.

    Raises:
        NetworkInvalid: a network can not be built or run.
        StudyInvalid: a process died, for want of memory perhaps.
    """
    if jobs == 1:
        with _one_thread():
            for trial in trials:
                yield run_trial(trial, data, batch_size)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),  # a fork would copy torch's threads half alive
        initializer=_start_worker,
        initargs=(data, batch_size),
    )
    try:
        for done in as_completed([pool.submit(_run_in_worker, trial) for trial in trials]):
            yield _result(done)
    except BaseException:  # Ctrl-C, or the caller has had enough: what runs is not waited for
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _result(done: Future[Outcome]) -> Outcome:
    try:
        return done.result()
    except BrokenProcessPool as err:
        raise StudyInvalid(
            "a process that trained died, for want of memory perhaps: run the same command again, which goes on where "
            "it was, with fewer --jobs"
        ) from err


def _start_worker(data: Data, batch_size: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the one that started this one decides what comes of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _held[:] = [(data, batch_size)]


def _run_in_worker(trial: Trial) -> Outcome:
    ((data, batch_size),) = _held
    return run_trial(trial, data, batch_size)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

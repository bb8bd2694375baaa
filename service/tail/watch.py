"""One thread, watched: its counters after each piece of work, and since when it has not slept.

A request that arrives while its thread works waits unseen in the socket. When it arrived nobody knows; but it did after
the thread's last sleep, for a thread that sleeps is woken by it, and after the last time but one that the event loop
asked for what had arrived, for it would have been told the last time. So the later of the two bounds its wait.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile

from service.tail.counters import Readable, Sample

NUM_SAMPLES = 1024
NUM_ANSWERS = 4096
NUM_POLLS = 3
# Of the time between two samples, what neither ran nor waited for a CPU. The clocks differ by less than that.
SLEPT_SECONDS = 20e-6
# A prediction holds the loop before it is read whole, and when its answer is written; about so long each time.
HANDLING_SECONDS = 30e-6


class Watch:
    """The samples of one thread. To be used from one thread, which may be another."""

    def __init__(self, counters: Readable) -> None:
        self.counters = counters
        self._last = counters.read()
        self._samples = deque([self._last], maxlen=NUM_SAMPLES)
        self._answers: deque[tuple[float, float]] = deque(maxlen=NUM_ANSWERS)
        self._polls = deque([self._last.at] * NUM_POLLS, maxlen=NUM_POLLS)
        self.busy_since = self._last.at

    def look(self, *, worked: bool = False) -> Sample:
        """Take a sample, and notice if the thread has slept since the one before.

        If it is known to have `worked` all the time, then what looks like sleep was part of the work: a disk, a lock.
        """
        last, sample = self._last, self.counters.read()
        busy = (sample.ran - last.ran) + (sample.waited - last.waited)
        if not worked and sample.at - last.at - busy > SLEPT_SECONDS:
            self.busy_since = sample.at - busy
        self._samples.append(sample)
        self._last = sample
        return sample

    def note_poll(self, at: float) -> None:
        """Note that the event loop asks, now, for what has arrived."""
        self._polls.append(at)

    def note_answer(self, read_at: float, at: float) -> None:
        """Note that a prediction was read and answered."""
        self._answers.append((read_at, at))

    def earliest_arrival(self, read_at: float) -> float:
        """Say when a request, read at `read_at`, can have arrived at the earliest."""
        oldest, middle, newest = self._polls
        polled = middle if newest <= read_at else oldest
        return min(read_at, max(self.busy_since, polled))

    def between(self, begin: float, end: float) -> Sample:
        """Give what was counted from the last sample at or before `begin` to the first at or after `end`.

        Where there is none, from the oldest that is still known, and to the last.
        """
        first = last = self._last
        for sample in reversed(self._samples):
            last = sample if sample.at >= end else last
            first = sample
            if sample.at <= begin:
                break
        return last.since(first)

    def others(self, arrived: float, read_at: float, end: float) -> tuple[int, float]:
        """Count the predictions answered from a request's arrival to its answer at `end`, and the seconds they took.

        Before it was read they took what they took. Then it ran with some, or queued behind them: each had its share.
        """
        recent = takewhile(lambda answer: answer[1] > arrived, reversed(self._answers))
        answers = [answer for answer in recent if answer[1] < end]
        num_together = sum(at >= read_at for _, at in answers)
        share = num_together / (num_together + 1)
        return len(answers), _cover(answers, arrived, read_at) + share * (end - read_at)


def _cover(answers: list[tuple[float, float]], begin: float, end: float) -> float:
    """Give how much of a time is covered by answers, the latest first, with what reading and writing them takes."""
    covered, left = 0.0, end
    for read_at, at in answers:
        first, last = max(begin, read_at - HANDLING_SECONDS), min(left, at + HANDLING_SECONDS)
        covered += max(0.0, last - first)
        left = min(left, max(begin, first))
    return covered

"""A load that lasts, with versions that come and go: nothing is lost, nothing is wrong, nothing grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import MEBIBYTE, Plan, headlines, render, soak

# Of a line through samples that jump by a version's megabyte at each reload: over a minute they are worth about one.
GROWTH_BOUND_BYTES = 4 * MEBIBYTE


@pytest.mark.slow
def test_a_minute_of_load_with_twenty_reloads_loses_nothing_and_grows_by_nothing(tmp_path: Path) -> None:
    soaked = soak(Plan(seconds=60, reload_seconds=2.9), tmp_path)
    assert soaked.tally.problems == []
    assert soaked.num_reloads == 20
    assert len(soaked.tally.by_version) == 22  # of all versions, and those that named none
    assert soaked.grown_bytes < GROWTH_BOUND_BYTES
    assert soaked.warm[-1].num_files <= soaked.warm[0].num_files + 2


def test_some_seconds_of_it_say_what_a_long_one_would(tmp_path: Path) -> None:
    soaked = soak(Plan(seconds=3, reload_seconds=1), tmp_path)
    assert soaked.tally.problems == []
    assert soaked.num_reloads == 2
    assert len(headlines(soaked)) == 5
    assert "| machine |" in render(soaked, {"CPU": "a fast one"})

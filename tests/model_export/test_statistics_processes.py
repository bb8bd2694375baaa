"""Claims about several processes: each measures its share, and all get what one alone gets, to the bit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.multiprocessing.spawn import spawn

from model_export.errors import StatisticsInvalid
from model_export.statistics import FrozenStatistics, current_processes, estimate_statistics, precise_statistics
from tests.model_export.bn_networks import ONE_AXIS, built, instances

TIMEOUT = timedelta(seconds=60)
NUM_INSTANCES, BATCH_SIZE = 90, 8  # twelve batches, the last of them smaller


def measured(name: str) -> dict[str, dict[str, FrozenStatistics]]:
    network, data = built(ONE_AXIS[name]), instances(NUM_INSTANCES, 6)
    return {
        "exact": estimate_statistics(network, data, batch_size=BATCH_SIZE),
        "precise": precise_statistics(network, data, batch_size=BATCH_SIZE),
    }


def as_bytes(found: dict[str, dict[str, FrozenStatistics]]) -> dict[str, tuple[bytes, bytes, int]]:
    return {
        f"{method} {name}": (values.mean.tobytes(), values.var.tobytes(), values.num_values)
        for method, statistics in found.items()
        for name, values in statistics.items()
    }


def measure_together(rank: int, size: int, folder: str, names: list[str]) -> None:
    """What each process does; its results go into a file, for the test to look at."""
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    torch.save({name: as_bytes(measured(name)) for name in names}, f"{folder}/{rank}")
    distributed.destroy_process_group()


def fail_together(rank: int, size: int, folder: str) -> None:
    """One instance, which is one process's to measure, is not finite."""
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    data = instances(NUM_INSTANCES, 6)
    data[BATCH_SIZE, 3] = torch.nan
    try:
        estimate_statistics(built(ONE_AXIS["chain"]), data, batch_size=BATCH_SIZE)
    except StatisticsInvalid as err:
        Path(f"{folder}/{rank}").write_text(str(err))
    distributed.destroy_process_group()


def fail_with_odd_errors(rank: int, size: int, folder: str) -> None:
    """An error that no other process could be handed: its class is not to be found there."""
    torch.set_num_threads(1)
    store = FileStore(f"{folder}/store", size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=TIMEOUT)

    class OddError(Exception):
        def __init__(self, one: str, two: str) -> None:
            super().__init__(f"{one} {two}")

    def compute() -> int:
        if rank == 1:
            raise OddError("out of", "luck")
        return rank

    try:
        current_processes().gather_computed(compute)
    except Exception as err:  # noqa: BLE001  # what is told is looked at by the test
        Path(f"{folder}/{rank}").write_text(f"{type(err).__name__}: {err}")
    distributed.destroy_process_group()


def results(folder: Path, size: int) -> list[Any]:
    return [torch.load(folder / str(rank), weights_only=True) for rank in range(size)]


@pytest.mark.parametrize("size", [2, 4])
def test_several_processes_give_the_bits_of_one(size: int, tmp_path: Path) -> None:
    names = ["chain", "branches", "recurrent", "dynamic"]
    spawn(measure_together, (size, str(tmp_path), names), nprocs=size)  # type: ignore[no-untyped-call]
    alone = {name: as_bytes(measured(name)) for name in names}
    assert results(tmp_path, size) == [alone] * size


def test_what_one_process_meets_is_raised_by_all(tmp_path: Path) -> None:
    spawn(fail_together, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    told = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert all("BatchNorm '0' is fed NaN or infinity, in channels 3" in words for words in told)
    assert sorted("could not measure its share" in words for words in told) == [False, True]


def test_an_error_that_can_not_be_handed_round_is_told_in_words(tmp_path: Path) -> None:
    spawn(fail_with_odd_errors, (2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    told = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    assert told[0].startswith("StatisticsInvalid: process 1 of 2 could not measure its share: OddError: out of luck")
    assert told[1] == "OddError: out of luck"

"""What a container may use of the machine: the limits of its control group, of either version, and of all above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.doctor.surroundings import Surroundings

NO_LIMIT = 1 << 60  # what version 1 says for "no limit" is larger than this


@dataclass(frozen=True, kw_only=True)
class Limits:
    """None is no limit. `cores` is CPU time by time, `free_bytes` is what may yet be taken of the tightest group.

    `num_throttled` counts how often the group had used up its CPU time and had to wait.
    """

    cores: float | None = None
    free_bytes: int | None = None
    num_throttled: int = 0


def read_limits(surroundings: Surroundings) -> Limits:
    """Read the limits that hold for this process."""
    cpu, memory = (list(_folders(surroundings, controller)) for controller in ("cpu", "memory"))
    cores = [cores for folder in cpu if (cores := _read_cores(surroundings, folder)) is not None]
    free = [free for folder in memory if (free := _read_free(surroundings, folder)) is not None]
    throttled = [_read_table(surroundings, folder / "cpu.stat").get("nr_throttled", 0) for folder in cpu]
    return Limits(
        cores=min(cores, default=None), free_bytes=min(free, default=None), num_throttled=max(throttled, default=0)
    )


def _folders(surroundings: Surroundings, controller: str) -> Iterator[Path]:
    """Give the folder of the group that this process is in, then those above it."""
    for line in surroundings.read(surroundings.proc / "self" / "cgroup").splitlines():
        _, controllers, group = line.split(":", maxsplit=2)
        if controllers and controller not in controllers.split(","):
            continue
        root = surroundings.sys / "fs" / "cgroup" / (controller if controllers else "")
        inner = root / group.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _read_cores(surroundings: Surroundings, folder: Path) -> float | None:
    quota, _, period = surroundings.read(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = (surroundings.read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    if not (quota.isdecimal() and period.isdecimal()):
        return None
    return int(quota) / int(period)


def _read_free(surroundings: Surroundings, folder: Path) -> int | None:
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, used = (surroundings.read(folder / name) for name in (limit_file, used_file))
        if limit.isdecimal() and used.isdecimal() and int(limit) < NO_LIMIT:
            return int(limit) - int(used) + _read_reclaimable(surroundings, folder)
    return None


def _read_reclaimable(surroundings: Surroundings, folder: Path) -> int:
    """Count the bytes of files that the kernel keeps in memory and gives up when it has to."""
    table = _read_table(surroundings, folder / "memory.stat")
    return table.get("total_inactive_file", table.get("inactive_file", 0))


def _read_table(surroundings: Surroundings, path: Path) -> dict[str, int]:
    pairs = (line.split() for line in surroundings.read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

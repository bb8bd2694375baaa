"""Where a folded model comes from, written into the model itself (metadata_props), for whoever finds it alone.

`metadata_props` is a repeated field of protobuf's ModelProto, and in protobuf what is appended to a message is merged
into it. So the lines are appended to the finished file, after it was compared: no weight is written a second time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_export.ir import ir
from service.bundle import FoldReport

PREFIX = "foldserve."
CHUNK = 2**20


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is noted: the digest of the file that was folded, whose statistics it held, and how well it came out.

    `statistics` is "exact" or "ema" where they are ours, "as found" otherwise. `largest_difference` is relative to the
    largest output; `noise_floors` is the same in units of the network's own noise. Both are "not compared" if so.
    """

    source_sha256: str
    statistics: str
    ledger_sha256: str
    folded: str
    largest_difference: str
    noise_floors: str

    def lines(self) -> dict[str, str]:
        """The entries of metadata_props."""
        version = importlib.metadata.version("foldserve")
        return {f"{PREFIX}version": version} | {f"{PREFIX}{key}": value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Measured:
    """How far the folded model is from the original: relative, and in noise floors; None if it was not compared."""

    relative_difference: float | None
    in_noise_floors: float | None


def provenance_of(report: FoldReport, measured: Measured, *, source_sha256: str, statistics: str) -> Provenance:
    """The provenance of a fold."""
    found, floors = measured.relative_difference, measured.in_noise_floors
    return Provenance(
        source_sha256=source_sha256,
        statistics=statistics,
        ledger_sha256=sha256_of_ledger(report),
        folded=summary_of(report),
        largest_difference="not compared" if found is None else f"{found:.2e}",
        noise_floors="not compared" if floors is None else f"{floors:.2f}",
    )


def stamp(path: Path, provenance: Provenance) -> None:
    """Append the provenance to a model file. Raises OSError."""
    import onnx

    lines = provenance.lines()
    tail = onnx.ModelProto(metadata_props=[onnx.StringStringEntryProto(key=key, value=lines[key]) for key in lines])
    with path.open("ab") as file:
        file.write(tail.SerializeToString())


def forget_provenance(model: ir.Model) -> None:
    """Remove what an earlier fold noted, in place: it is not true of this model, and a key may stand there once."""
    for key in [key for key in model.metadata_props if key.startswith(PREFIX)]:
        del model.metadata_props[key]


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of_ledger(report: FoldReport) -> str:
    """The SHA-256 of a ledger as JSON, in hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(report, order="deterministic")).hexdigest()


def summary_of(report: FoldReport) -> str:
    """`53 of 53 BatchNorms`: those that are gone, folded or merged."""
    gone = sum(entry.outcome != "kept" for entry in report.entries)
    return f"{gone} of {len(report.entries)} BatchNorms"

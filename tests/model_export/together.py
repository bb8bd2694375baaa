"""A training of several processes that tells, in each of them, what it came to: `python -m … FOLDER PROCESSES`.

Each process writes rank.json into FOLDER: the digest of the weights that it has trained (not of those that were saved),
the exact statistics that all of them measure together while they still form a group, and the test accuracy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from model_export.digest import digest_weights
from model_export.options import TrainingOptions
from model_export.statistics import current_processes, estimate_statistics
from model_export.train import Finished, train
from tests.model_export.runs import BUILT, DIGITS, REMEMBERED


def train_together(folder: Path, num_processes: int) -> None:
    """Train, in this process and in as many more as it takes."""
    told: dict[str, Any] = {}

    def tell(finished: Finished) -> None:
        statistics = estimate_statistics(finished.network, finished.splits.calibration)
        told["statistics"] = {name: [one.mean.tolist(), one.var.tolist()] for name, one in statistics.items()}
        told["num_processes"] = current_processes().size

    options = TrainingOptions(epochs=12, devices=num_processes)
    result = train(DIGITS, REMEMBERED, options, run_dir=folder / "run", device="cpu", progress=False, at_end=tell)
    told |= {"weights": digest_weights(BUILT[0]), "test_accuracy": result.test_accuracy}
    (folder / f"{result.rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    train_together(Path(sys.argv[1]), int(sys.argv[2]))

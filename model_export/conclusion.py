"""The conclusion of a training run: exact statistics are measured, the moving averages audited, the report written.

All processes of the run measure together, while they still form a group; the first one writes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from model_export.audit import Audit
from model_export.audit.trained import audit_trained
from model_export.devices import find_device
from model_export.measuring import MeasuringOptions, Statistics, as_trained
from model_export.report import write_report
from model_export.statistics import Tell, current_processes
from model_export.threads import threads_for
from model_export.train import Finished
from service.device import Device

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class Conclusion:
    """What was found, and where the report lies."""

    audit: Audit
    report_path: Path


def conclude(finished: Finished, *, when: dt.datetime, device: Device = "auto", tell: Tell | None = None) -> Conclusion:
    """Measure on `device`, audit, and leave `report.html` beside the checkpoint; `when` is when training ended.

    Raises:
        StatisticsInvalid: a BatchNorm can not be measured; names it.
        OSError: the report can not be written.
    """
    checkpoint, network, splits = finished.checkpoint, finished.network, finished.splits
    trained = as_trained(checkpoint, network, splits)
    options = MeasuringOptions(device=find_device(device))
    with threads_for(network, splits.instance_shape, options.batch_size):
        audit, measured = audit_trained(trained, splits.valid, options, methods=("ema", "exact"), tell=tell)
        path = checkpoint.path.with_name(REPORT)
        if current_processes().rank == 0:
            statistics: dict[str, Statistics] = {
                method: values for method, values in measured.items() if not isinstance(values, str)
            }
            write_report(path, run=finished.run, network=network, split=splits.test, statistics=statistics, when=when)
    return Conclusion(audit, path)

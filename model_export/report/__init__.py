"""The training report: one HTML file beside the checkpoint that shows how a run went and what came of it.

First all is found out (`find_out`, a value with every number), then told (`tell`, a page), then written.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from model_export.checkpoint import Run
from model_export.data import Split
from model_export.pages import write_page
from model_export.report.findings import Findings, find_out
from model_export.report.story import tell
from model_export.statistics import FrozenStatistics

__all__ = ["Findings", "find_out", "tell", "write_report"]


def write_report(  # noqa: PLR0913 - where to, and five keywords: what there is to tell
    path: Path,
    *,
    run: Run,
    network: nn.Module,
    split: Split,
    statistics: Mapping[str, Mapping[str, FrozenStatistics]],
    when: dt.datetime,
) -> None:
    """Write the report of `run` to `path`, as one HTML file that needs nothing else; whole or not at all.

    Args:
        path: the file, in a folder that is there.
        run: with the history of one epoch at least.
        network: the best checkpoint's, as trained, in any mode and on any device; it is left as it is.
        split: the held-out instances, one at least.
        statistics: under `exact` those of every BatchNorm that forward comes to, by qualified name in the order of
            forward; under `ema` the moving averages of the same ones, or of some, or none: then they are not compared.
        when: when training ended, with its time zone.

    Raises:
        DataInvalid: the split is empty.
        StatisticsInvalid: the exact statistics are not those of this network.
        OSError: the file can not be written.
    """
    write_page(path, tell(find_out(run, network, split, statistics), when=when))

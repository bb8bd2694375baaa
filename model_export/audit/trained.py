"""The audit of a trained network: measures its statistics by every method, then holds them against each other."""

from __future__ import annotations

from dataclasses import replace

from model_export.audit import Audit, Subject, audit
from model_export.data import Split
from model_export.errors import StatisticsInvalid
from model_export.inference_copy import inference_copy
from model_export.measuring import MeasuringOptions, Method, Statistics, Trained, measure_statistics
from model_export.statistics import Tell, count_instances, sample

ALL: tuple[Method, ...] = ("ema", "exact", "precise")
Measured = dict[Method, Statistics | str]


def audit_trained(
    trained: Trained,
    valid: Split,
    options: MeasuringOptions,
    *,
    methods: tuple[Method, ...] = ALL,
    tell: Tell | None = None,
) -> tuple[Audit, Measured]:
    """Measure by `methods`, which must hold `exact`, and audit; also returns the statistics, or why there are none.

    Raises:
        StatisticsInvalid: exact statistics can not be measured.
        NetworkInvalid: the network can not take the instances.
    """
    trained = replace(trained, network=inference_copy(trained.network, device=options.device))
    measured: Measured = {method: _attempt(method, trained, options, tell) for method in methods}
    calibration = sample(trained.calibration, options.samples)
    subject = Subject(
        num_instances=trained.num_instances if options.samples is None else count_instances(calibration),
        num_training_instances=trained.num_instances,
        batch_size=trained.batch_size,
        weights_match=trained.weights_match,
    )
    return audit(trained.network, measured, calibration=calibration, valid=valid, subject=subject), measured


def _attempt(method: Method, trained: Trained, options: MeasuringOptions, tell: Tell | None) -> Statistics | str:
    """Averages may be missing or unusable, and batches of one have none; exact statistics there must be."""
    try:
        return measure_statistics(method, trained, options, tell=tell)
    except StatisticsInvalid as err:
        if method == "exact":
            raise
        return str(err)

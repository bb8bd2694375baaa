"""The audit: whether the moving averages of a trained network can be used, and what exact statistics would change.

values    what an audit finds, as values
layers    one BatchNorm: average against exact, residuals, channels that are dead or dangerous
choices   how good the network is on held-out instances under each kind of statistics
advice    one sentence that says what to do, and why
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from model_export.audit.advice import advise
from model_export.audit.choices import try_all
from model_export.audit.layers import audit_layers
from model_export.audit.values import AgainstExact, Audit, Choice, LayerAudit, Subject
from model_export.data import Split
from model_export.measuring import Method, Statistics
from model_export.statistics import Instances, named_batchnorms

__all__ = ["AgainstExact", "Audit", "Choice", "LayerAudit", "Subject", "audit"]


def audit(
    network: nn.Module,
    statistics: Mapping[Method, Statistics | str],
    *,
    calibration: Instances,
    valid: Split,
    subject: Subject,
) -> Audit:
    """Hold each kind of statistics against what the network really sees, and against held-out instances.

    Args:
        network: as trained; it is left as it is.
        statistics: of each kind, by qualified name; or the sentence that says why there are none. `exact` must be.
        calibration: what the exact ones were measured over: the residuals of all are measured there.
        valid: held-out instances that accuracy and loss are measured on.
        subject: what is known of the training.

    Raises:
        StatisticsInvalid: statistics do not fit the network.
        NetworkInvalid: the network can not take the instances.
    """
    exact = statistics["exact"]
    if isinstance(exact, str):
        raise TypeError(f"an audit needs exact statistics to compare with, and there are none: {exact}")
    layers = audit_layers(network, statistics, exact, calibration)
    choices, exact_only, ema_only = try_all(network, statistics, valid)
    unreached = tuple(name for name in named_batchnorms(network) if name not in exact)
    found = Audit(
        subject=subject,
        layers=layers,
        choices=choices,
        num_valid=len(valid),
        num_right_with_exact_only=exact_only,
        num_right_with_ema_only=ema_only,
        unreached=unreached,
    )
    return advise(found)

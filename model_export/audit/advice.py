"""One sentence that says what to do about the statistics of a network, and why; and what its channels warn of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace

from model_export.audit.values import AgainstExact, Audit, LayerAudit
from model_export.wording import some

# Accuracy that counts: half a point, and more than twice the standard error of the difference, which for paired answers
# is the root of the number of instances on which they differ (McNemar 1947).
COSTLY = 0.005
STANDARD_ERRORS = 2
# What is left of the initial mean 0 and variance 1: a hundredth is less than the noise of most averages.
INITIAL_WEIGHT = 0.01
# How far averages may be off before it is said: half a standard deviation, or a spread half as wide again (or 1/1.5).
SHIFT = 0.5
RATIO = 1.5
# The σ of the typical channel, by the exact one, that tells of batches which vary less than the data.
SMALL_BATCH_RATIO = 0.8


def advise(audit: Audit) -> Audit:
    """Add the sentence and the cautions."""
    return replace(audit, usable=_usable(audit), advice=_advice(audit), cautions=tuple(_cautions(audit)))


def _usable(audit: Audit) -> bool:
    return not audit.choice("ema").problem and not _gain_of_exact(audit) > 0


def _advice(audit: Audit) -> str:
    ema, exact = audit.choice("ema"), audit.choice("exact")
    if not audit.layers:
        return "There is no BatchNorm in this network that forward comes to, so there is nothing to freeze."
    if ema.problem or ema.accuracy is None or exact.accuracy is None:
        why = ema.problem.partition(": ")[0]  # what it advises beside is for those who insist on the average
        return f"The moving average is not usable ({why}): export with exact statistics, the default."
    both = f"{ema.accuracy:.3f} with it, {exact.accuracy:.3f} with exact statistics"
    gain = _gain_of_exact(audit)
    if gain > 0:
        return (
            f"The moving average is not usable: it costs {gain * 100:.1f} points of validation accuracy ({both}), "
            f"because {_reason(audit)}; export with exact statistics, the default."
        )
    if gain < 0:
        return _advice_against_exact(audit, both)
    if _is_off(audit):
        return (
            f"Export with exact statistics, the default: the moving average is off, because {_reason(audit)}, even if "
            f"{audit.num_valid} validation instances do not show it ({both})."
        )
    return f"Either will do ({both}): exact statistics are the default, and the same for every size of batch."


def _advice_against_exact(audit: Audit, both: str) -> str:
    if audit.subject.num_instances < audit.subject.num_training_instances:
        return (
            f"A sample of {audit.subject.num_instances} instances is too small to say: exact statistics over it answer "
            f"worse than the moving average ({both}); measure over more, or over all."
        )
    return (
        f"Export with --statistics ema: the network answers better with what it kept in training ({both}), so its "
        "layers count on their batches; train on, with larger batches, before you rely on it."
    )


def _gain_of_exact(audit: Audit) -> float:
    """The accuracy that exact statistics gain over the average; 0 where it is too little to count."""
    more, fewer = audit.num_right_with_exact_only, audit.num_right_with_ema_only
    gain, error = (more - fewer) / audit.num_valid, math.sqrt(more + fewer) / audit.num_valid
    return gain if abs(gain) >= COSTLY and abs(gain) > STANDARD_ERRORS * error else 0.0


def _is_off(audit: Audit) -> bool:
    return audit.subject.weights_match is False or any(
        (layer.initial_weight or 0.0) > INITIAL_WEIGHT or _is_far(layer) for layer in audit.layers
    )


def _is_far(layer: LayerAudit) -> bool:
    return layer.against_exact is not None and _distance(layer.against_exact) > 1


def _reason(audit: Audit) -> str:
    """The likeliest cause: what is certain first, then what is measured."""
    youngest = max(audit.layers, key=lambda layer: layer.initial_weight or 0.0)
    left = youngest.initial_weight or 0.0
    compared = [(layer.batchnorm, layer.against_exact) for layer in audit.layers if layer.against_exact]
    typical_ratio = statistics.median([found.median_std_ratio for _, found in compared] or [1.0])
    if audit.subject.weights_match is False:
        return "it was kept with other weights than the checkpoint now holds (averaged, exchanged or trained on since)"
    if left > INITIAL_WEIGHT:
        return (
            f"after {youngest.num_steps} steps with momentum {youngest.momentum:g} the initial mean 0 and variance 1 "
            f"still weigh {left:.0%} in it"
        )
    if typical_ratio < SMALL_BATCH_RATIO:
        return (
            f"the batches it was taken over vary less than the training set (σ is {typical_ratio:.2f} of "
            "what it should be), as very small batches or sorted ones do"
        )
    name, furthest = max(compared, key=lambda pair: _distance(pair[1]))
    return (
        f"it lags behind the weights or was taken over other data (at {name} the mean is off by "
        f"{furthest.mean_shift:.2g} σ, and σ by a factor of {furthest.std_ratio:.2g})"
    )


def _distance(found: AgainstExact) -> float:
    """How far an average is off, in units of what is said: in its mean or in its spread, whichever is further."""
    return max(found.mean_shift / SHIFT, abs(math.log(found.std_ratio)) / math.log(RATIO))


def _cautions(audit: Audit) -> Iterable[str]:
    for name in audit.unreached:
        yield f"{name}: forward never comes to it, so it is left as it is"
    for layer in audit.layers:
        if layer.dead_channels:
            yield f"{layer.batchnorm}: {_channels(layer.dead_channels)} dead: constant in training, or γ is 0"
        if layer.amplifying_channels:
            channels = _channels(layer.amplifying_channels)
            yield f"{layer.batchnorm}: {channels} amplified more than 1,000 times (up to {layer.max_gain:.3g})"
        if layer.float16_channels:
            yield f"{layer.batchnorm}: {_channels(layer.float16_channels)} beyond float16's range: keep it in float32"
        if layer.eps > layer.smallest_var > 0:
            yield f"{layer.batchnorm}: eps {layer.eps:g} outweighs the smallest variance, {layer.smallest_var:.2g}"


def _channels(channels: tuple[int, ...]) -> str:
    if len(channels) == 1:
        return f"channel {channels[0]} is"
    return f"{len(channels)} channels ({some(str(channel) for channel in channels)}) are"

"""Runs a model before and after folding in ONNX Runtime, whole against whole: the last look at what is to be written.

A deep network that is right and a shallow one that is wrong can both be off by 1e-3; only measured against the
network's own noise are they told apart. So a difference is a multiple of a *noise floor*: how far the unfolded
network's own answers move, relative to the largest, when its input moves by one unit in the last place (ulp), and no
less than one ulp of the answer.

Measured by hand in 200 random networks (3 to 50 layers deep, with and without convolutions, residual sums and large
gains); tests/model_export/fold/test_check.py holds its two ends, a right fold of 50 layers and 1 % in a channel:

    difference, in noise floors          median    19 of 20 below    largest
    right folds, float32                    1.6               4.3        9.3
    right folds, float16                    0.5               1.6        2.6
    one channel of one weight wrong by 1 %: median 90 (dense) and 270 (convolutions) in float32; by 5 %: 560 and 1500

A quarter of the wrong channels reached the output not at all (dead behind a ReLU, or drowned in a chaotic network):
no look at a whole model can see those. Nor can it see a few percent in one channel in float16, where one ulp is 1e-3.
The proof of each single fold is elsewhere; this is the look at what they make together, and at ONNX Runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from model_export.errors import FoldInvalid, first_line
from model_export.fold.files import load_model, save_model
from model_export.fold.instances import SEED, SERVING, UNOPTIMISED, Array, Arrays, find_feeds, open_session, run
from model_export.ir import ir
from service.runtime import ort

NUM_FLOORS = 30.0  # three times the most that a right fold was seen to need
GROSS = {  # below, no difference is called wrong: it is what a score is printed with
    np.dtype(np.float16): 3e-2,
    np.dtype(np.float32): 1e-5,
    np.dtype(np.float64): 1e-6,  # eps is a float32 in ONNX, however precise the model: folds differ by 1e-7 for it
}
NUM_JITTERS = 2
NUM_SHAKES = 2
JUMP_ULPS = 8  # a smooth network moves by 8 floors when shaken by so much; one that moves by NUM_FLOORS jumps
TINY = 1e-30  # instead of a division by zero


@dataclass(frozen=True, eq=False)
class Recording:
    """What the unfolded model in `path` answers to `feeds`, unoptimised; or why that says nothing about a fold.

    `noise_floors` has an entry for each output that can be compared. `runtime_difference` is how far ONNX Runtime's
    optimised answers are from these, relative to the largest, for the same unfolded model; None if it does not run so.
    """

    path: Path
    feeds: tuple[Arrays, ...] = ()
    answers: tuple[Arrays, ...] = ()
    noise_floors: dict[str, float] = field(default_factory=dict)
    runtime_difference: float | None = None
    runtime_parts: frozenset[str] = frozenset()  # outputs where the runtime's optimiser is wrong on its own
    not_compared: str = ""
    serving_seconds: float | None = None  # for one instance, as it will be served


@dataclass(frozen=True)
class Comparison:
    """The largest difference of any output, relative to that output's largest value; or why there was none to see.

    `in_noise_floors` is the largest by the other measure, and `noise_floor` is the floor of the output that has it.
    `by_level` is the largest relative difference at each level of ONNX Runtime's optimisation.
    """

    relative_difference: float | None
    not_compared: str = ""
    noise_floor: float | None = None
    in_noise_floors: float | None = None
    by_level: dict[str, float] = field(default_factory=dict)
    runtime_difference: float | None = None
    serving_seconds: float | None = None


@dataclass(frozen=True)
class Difference:
    """How far one output's answers are apart, and by what that is judged."""

    output: str
    level: str
    relative: float
    noise_floor: float
    gross: float
    jumps: bool = False  # the unfolded model does so too when its numbers hardly move: no fault can be seen there

    @property
    def in_noise_floors(self) -> float:
        """The multiple of the network's own noise."""
        return self.relative / self.noise_floor

    @property
    def is_large(self) -> bool:
        """Whether it is too large to be rounding, by both measures."""
        return self.relative > self.gross and self.in_noise_floors > NUM_FLOORS

    @property
    def is_wrong(self) -> bool:
        """Whether it is large, and the model is one in which that means something."""
        return self.is_large and not self.jumps


def compare_models(before: ir.Model, after: ir.Model) -> Comparison:
    """Compare two models that are not in files yet.

    Raises:
        FoldInvalid: as `compare` does; or the temporary files can not be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "before.onnx", Path(folder) / "after.onnx"
        for model, path in zip((before, after), paths, strict=True):
            save_model(model, path)
        return compare(record(paths[0]), paths[1])


# --- the unfolded model ----------------------------------------------------------------------------------------------


def record(path: Path) -> Recording:
    """Run the unfolded model on standard normal instances, one alone and two together, and measure its noise.

    `path` must stay there until the comparison is done: it may have to ask the model again.
    """
    try:
        recording, reason = _record_unoptimised(path)
    except Exception as err:  # noqa: BLE001 - whatever keeps the raw model from running, it says nothing about the fold
        return Recording(path, not_compared=f"the model does not run here on random instances: {first_line(err)}")
    return replace(recording, not_compared=reason) if reason else _record_serving(recording)


def _record_unoptimised(path: Path) -> tuple[Recording, str]:
    session = open_session(path, UNOPTIMISED)
    feeds, answers = zip(*find_feeds(session), strict=True)
    if not _equal(answers[0], run(session, feeds[0])):
        return Recording(path, feeds, answers), "the model itself is random"
    floors = noise_floors(session, feeds, answers)
    steady = {name: floor for name, floor in floors.items() if np.isfinite(floor)}
    return Recording(path, feeds, answers, steady), _why_nothing_to_compare(floors, steady)


def _why_nothing_to_compare(floors: Mapping[str, float], steady: Mapping[str, float]) -> str:
    if not floors:
        return "no output is of a floating-point dtype"
    return "" if steady else "the shapes of the model's own answers change when its input moves by one ulp"


def _record_serving(recording: Recording) -> Recording:
    """Note where ONNX Runtime's optimiser is wrong already: the fold is not to blame for that."""
    try:
        differences, seconds = _differences(recording, recording.path, SERVING)
    except Exception:  # noqa: BLE001 - the optimiser breaks the unfolded model: it may break the folded one, too
        return replace(recording, runtime_parts=frozenset(recording.noise_floors))
    parts = frozenset(each.output for each in differences if each.is_wrong)
    return replace(recording, runtime_difference=_largest(differences), runtime_parts=parts, serving_seconds=seconds)


def noise_floors(session: ort.InferenceSession, feeds: Sequence[Arrays], answers: Sequence[Arrays]) -> dict[str, float]:
    """How far each floating-point answer moves, relative to its largest value, when the input moves by one ulp."""
    rng = np.random.default_rng(SEED + 1)
    floors = {name: float(np.finfo(array.dtype).eps) for name, array in answers[0].items() if is_floating(array)}
    pairs = list(zip(feeds, answers, strict=True)) if any(is_floating(array) for array in feeds[0].values()) else []
    for feed, expected in pairs[:1] * NUM_JITTERS:
        moved = run(session, {name: jitter(array, rng) for name, array in feed.items()})
        floors = {name: max(floor, relative_difference(expected[name], moved[name])) for name, floor in floors.items()}
    return floors


# --- the folded model against it -------------------------------------------------------------------------------------


def compare(recording: Recording, path: Path) -> Comparison:
    """Ask the folded model in `path` the same, unoptimised and as it will be served.

    Raises:
        FoldInvalid: ONNX Runtime runs the unfolded model but not this one, or their answers differ grossly.
    """
    unoptimised, _ = _folded_differences(recording, path, UNOPTIMISED)
    serving, seconds = _folded_differences(recording, path, SERVING)
    differences = unoptimised + serving
    if recording.not_compared:
        return Comparison(None, recording.not_compared)
    if any(each.is_wrong for each in _blamed(differences, recording)):
        return replace(_second_look(differences, recording), serving_seconds=seconds)
    return replace(_comparison(differences, recording), serving_seconds=seconds)


def _folded_differences(recording: Recording, path: Path, level: str) -> tuple[list[Difference], float | None]:
    try:
        return _differences(recording, path, level)
    except FoldInvalid:
        raise
    except Exception as err:
        if level == SERVING and recording.feeds and recording.runtime_difference is None:
            return [], None  # the optimiser broke the unfolded model as well
        raise FoldInvalid(
            f"ONNX Runtime does not run the folded model ({level}): {first_line(err)}; please report this"
        ) from err


def _differences(recording: Recording, path: Path, level: str) -> tuple[list[Difference], float | None]:
    """The differences of every output for every batch; and how long one instance took, which comes last and warm."""
    if not recording.feeds:
        return [], None
    session = open_session(path, level)
    found, seconds = [], 0.0
    for feed, expected in reversed(list(zip(recording.feeds, recording.answers, strict=True))):
        start = perf_counter()
        answers = run(session, feed)
        seconds = perf_counter() - start
        _check_same_form(expected, answers)
        for name, floor in recording.noise_floors.items():
            relative = relative_difference(expected[name], answers[name])
            found.append(Difference(name, level, relative, floor, GROSS[expected[name].dtype]))
    return found, seconds if level == SERVING else None


def _check_same_form(expected: Arrays, found: Arrays) -> None:
    dtypes = [{name: str(array.dtype) for name, array in answers.items()} for answers in (expected, found)]
    if dtypes[0] != dtypes[1]:
        raise FoldInvalid(f"the outputs were {dtypes[0]}, folded they are {dtypes[1]}; please report this")


def _blamed(differences: Sequence[Difference], recording: Recording) -> list[Difference]:
    """Those that are the fold's: where the optimiser is wrong by itself, only the unoptimised answers count."""
    return [each for each in differences if each.level == UNOPTIMISED or each.output not in recording.runtime_parts]


def _second_look(differences: Sequence[Difference], recording: Recording) -> Comparison:
    """Before anything is called wrong."""
    differences = look_again(differences, recording)
    blamed = _blamed(differences, recording)
    wrong = [each for each in blamed if each.is_wrong]
    if wrong:
        raise FoldInvalid(_sentence(max(wrong, key=lambda each: each.in_noise_floors), wrong))
    if any(each.is_large for each in blamed):
        return Comparison(None, f"the model's own answers jump when all its numbers move by {JUMP_ULPS} ulps")
    return _comparison(differences, recording)


def _sentence(worst: Difference, wrong: Sequence[Difference]) -> str:
    optimised = all(each.level == SERVING for each in wrong)
    culprit = ", but only once ONNX Runtime has optimised it: the defect may be ONNX Runtime's" if optimised else ""
    return (
        f"the folded model answers differently (output {worst.output} by {worst.relative:.1e} of its largest value, "
        f"{worst.in_noise_floors:.0f} times the network's own noise){culprit}; nothing was written, please report this"
    )


def _comparison(differences: Sequence[Difference], recording: Recording) -> Comparison:
    worst = max(differences, key=lambda each: each.in_noise_floors)
    levels = {level: [each for each in differences if each.level == level] for level in (UNOPTIMISED, SERVING)}
    return Comparison(
        relative_difference=_largest(differences),
        noise_floor=worst.noise_floor,
        in_noise_floors=worst.in_noise_floors,
        by_level={level: _largest(found) for level, found in levels.items() if found},
        runtime_difference=recording.runtime_difference,
    )


def _largest(differences: Sequence[Difference]) -> float:
    return max(each.relative for each in differences)


# --- a network's noise, from its weights too -------------------------------------------------------------------------


def look_again(differences: Sequence[Difference], recording: Recording) -> list[Difference]:
    """Judge by the noise of the weights too, and see whether the unfolded model's answers jump."""
    floors, far = _shaken_floors(recording, ulps=1), _shaken_floors(recording, ulps=JUMP_ULPS)
    judged = [replace(each, noise_floor=max(each.noise_floor, floors[each.output])) for each in differences]
    return [replace(each, jumps=far[each.output] > NUM_FLOORS * each.noise_floor) for each in judged]


def _shaken_floors(recording: Recording, *, ulps: int) -> dict[str, float]:
    """How far the answers go when every number in the file, and of the input, moves by so many ulps.

    A fold rounds the weights anew, so this is its own error. The input alone does not show it where the network rounds
    coarsely in its middle (half precision between single-precision ends, or a large bias), or has integer inputs.
    """
    farthest = dict.fromkeys(recording.noise_floors, 0.0)
    for seed in range(NUM_SHAKES):
        for name, distance in _distances(recording, np.random.default_rng([SEED, seed]), ulps):
            farthest[name] = max(farthest[name], distance)
    return farthest


def _distances(recording: Recording, rng: np.random.Generator, ulps: int) -> Iterator[tuple[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        save_model(_shaken(load_model(recording.path), rng, ulps), Path(folder) / "shaken.onnx")
        session = open_session(Path(folder) / "shaken.onnx", UNOPTIMISED)
    for feed, expected in zip(recording.feeds, recording.answers, strict=True):
        answers = run(session, {name: jitter(array, rng, ulps) for name, array in feed.items()})
        yield from ((name, relative_difference(expected[name], answers[name])) for name in recording.noise_floors)


def _shaken(model: ir.Model, rng: np.random.Generator, ulps: int) -> ir.Model:
    """Moves the weights of a model that nobody else holds."""
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype.is_floating_point():
            value.const_value = ir.tensor(jitter(value.const_value.numpy(), rng, ulps), name=value.name)
    return model


def jitter(array: Array, rng: np.random.Generator, ulps: int = 1) -> Array:
    """Each finite value moved up or down by so many units in the last place; integers and infinities stay."""
    if not is_floating(array):
        return array
    towards = np.where(rng.random(array.shape, dtype=np.float32) < 0.5, np.inf, -np.inf).astype(array.dtype)
    with np.errstate(all="ignore"):  # the largest values overflow, the smallest underflow
        moved = np.nextafter(array, towards)
        moved = moved if ulps == 1 else moved + (ulps - 1) * (moved - array)
    return np.where(np.isfinite(array), moved, array)


# --- differences -----------------------------------------------------------------------------------------------------


def is_floating(array: Array) -> bool:
    """Whether a rounding can be seen in it."""
    return array.dtype in GROSS


def _equal(first: Arrays, second: Arrays) -> bool:
    return all(np.array_equal(first[name], second[name], equal_nan=is_floating(first[name])) for name in first)


def relative_difference(expected: Array, found: Array) -> float:
    """The largest difference relative to the largest finite value; infinities and NaNs in both are no difference."""
    if expected.shape != found.shape:
        return float("inf")
    if np.array_equal(expected, found):
        return 0.0
    with np.errstate(all="ignore"):
        quick = _of_finite(expected, found)
    return quick if np.isfinite(quick) else _of_any(expected.astype(np.float64), found.astype(np.float64))


def _of_finite(expected: Array, found: Array) -> float:
    """In the tensors' own precision, as the difference of close numbers is exact; not finite if they are not."""
    first = expected.astype(np.promote_types(expected.dtype, np.float32), copy=False)
    apart = np.abs(first - found).max()
    return float(apart) / max(float(np.abs(first).max()), TINY)


def _of_any(expected: Array, found: Array) -> float:
    """Infinite where only one is finite or NaN, or where two infinities are not the same."""
    differ = (expected != found) & ~(np.isnan(expected) & np.isnan(found))
    if not differ.any():
        return 0.0
    if not np.isfinite(expected[differ]).all() or not np.isfinite(found[differ]).all():
        return float("inf")
    largest = np.abs(expected[np.isfinite(expected)]).max()
    return float(np.abs(expected[differ] - found[differ]).max() / max(largest, TINY))

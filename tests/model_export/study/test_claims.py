"""Verdicts follow their rules, whatever the numbers; the page says them and needs nothing from outside."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from model_export.commands.study import StudyCommand, StudyInterrupted, run_study
from model_export.errors import StudyInvalid
from model_export.study.claims import (
    gradients,
    initialisation,
    judge_all,
    learning_rate,
    placement,
    single_instances,
    speed,
)
from model_export.study.claims.sweeps import Stop, Sweep
from model_export.study.evidence import Spread, spread_of
from model_export.study.need import Gains
from model_export.study.need import judge as judge_need
from model_export.study.page import Circumstances, write_report
from model_export.study.trials import WITHOUT, Outcome, Trial
from model_export.study.verdicts import HOLDS, NOT_HERE, NOT_SAID, WEAKLY, combine
from tests.model_export.study.small import READ, SUBJECT, TINY, digits, evidence, invented

RANK = {NOT_HERE: 0, WEAKLY: 1, HOLDS: 2}
CIRCUMSTANCES = Circumstances(
    command="python -m model_export study", date="2000-01-01", machine="a machine", versions="1", seconds=1.0, jobs=1
)
accuracies = st.floats(0.1, 1.0)
positive = st.floats(1e-30, 1e30)


def _arm(accuracy: float, ratio: float) -> gradients.Arm:
    return gradients.Arm(rate=0.1, accuracy=spread_of([accuracy]), ratio=spread_of([ratio]), runs=())


@given(accuracies, accuracies, accuracies, positive, positive)
def test_more_accuracy_with_batchnorm_is_never_a_worse_verdict_on_gradients(
    low: float, high: float, without: float, ratio: float, other: float
) -> None:
    low, high = sorted((low, high))
    worse, better = (gradients.judge(_arm(accuracy, ratio), _arm(without, other)) for accuracy in (low, high))
    assert RANK[worse] <= RANK[better]


@given(positive, accuracies)
def test_two_equal_arms_support_no_claim_about_gradients(ratio: float, accuracy: float) -> None:
    assert gradients.judge(_arm(accuracy, ratio), _arm(accuracy, ratio)) == NOT_HERE


@given(positive)
def test_a_ratio_and_its_inverse_are_as_far_from_one(ratio: float) -> None:
    assert _arm(0.5, ratio).decades_off == pytest.approx(_arm(0.5, 1 / ratio).decades_off, abs=1e-9)


def _sweep(having: list[bool], lacking: list[bool]) -> Sweep:
    def stops(trains: list[bool]) -> tuple[Stop, ...]:
        return tuple(
            Stop(place=10.0**index, rate=0.1, runs=(), accuracy=spread_of([0.9 if good else 0.1]))
            for index, good in enumerate(trains)
        )

    return Sweep(having=stops(having), lacking=stops(lacking), trains_from=0.5)


five = st.lists(st.booleans(), min_size=5, max_size=5)


@given(five, five, st.integers(0, 4))
def test_one_more_scale_with_batchnorm_is_never_a_worse_verdict(
    having: list[bool], lacking: list[bool], index: int
) -> None:
    more = [*having[:index], True, *having[index + 1 :]]
    assert RANK[initialisation.judge(_sweep(having, lacking))] <= RANK[initialisation.judge(_sweep(more, lacking))]
    assert RANK[learning_rate.judge(_sweep(having, lacking))] <= RANK[learning_rate.judge(_sweep(more, lacking))]


@given(five)
def test_two_equal_sweeps_support_no_claim(trains: list[bool]) -> None:
    sweep = _sweep(trains, trains)
    assert initialisation.judge(sweep) == NOT_HERE
    assert learning_rate.judge(sweep) == NOT_HERE


def test_the_largest_rate_decides_about_learning_rates() -> None:
    assert learning_rate.factor(_sweep([False, True, True], [True, True, False])) == 10
    assert learning_rate.factor(_sweep([False], [True])) == 0
    assert math.isinf(learning_rate.factor(_sweep([True], [False])))


@given(st.lists(st.sampled_from([HOLDS, WEAKLY, NOT_HERE]), min_size=1))
def test_a_claim_holds_only_where_all_networks_say_so(verdicts: list[str]) -> None:
    combined = combine(verdicts)  # type: ignore[arg-type]
    assert (combined == HOLDS) == (set(verdicts) == {HOLDS})
    assert (combined == NOT_HERE) == (set(verdicts) == {NOT_HERE})
    assert combine([*verdicts, NOT_SAID]) == combined  # type: ignore[list-item]


def test_of_nothing_nothing_is_said() -> None:
    assert combine([NOT_SAID, NOT_SAID]) == NOT_SAID


def _faster(step_with: int, step_without: int, without: float = 0.8) -> speed.Race:
    def invent(trial: Trial) -> Outcome:
        lacks = trial.placement == WITHOUT
        return invented(trial, without if lacks else 0.8, first_good=step_without if lacks else step_with)

    return speed.measure(evidence(invent), SUBJECT)


@pytest.mark.parametrize(
    ("step_with", "step_without", "verdict"),
    [(1, 16, HOLDS), (2, 16, HOLDS), (4, 16, WEAKLY), (16, 16, NOT_HERE), (16, 2, NOT_HERE), (64, 16, NOT_HERE)],
)
def test_speed_is_steps_without_by_steps_with(step_with: int, step_without: int, verdict: str) -> None:
    race = _faster(step_with, step_without)
    assert race.factor.median == (step_without / step_with if step_with <= 32 else 0)
    assert speed.judge(race) == verdict


def test_nothing_is_said_of_the_speed_to_an_accuracy_of_chance() -> None:
    assert speed.judge(_faster(1, 16, without=0.1)) == NOT_SAID


def test_the_speed_of_each_arm_is_that_of_its_fastest_rate() -> None:
    def invent(trial: Trial) -> Outcome:
        first_good = 1 if (trial.placement, trial.learning_rate) in {("before", 1.0), (WITHOUT, 0.01)} else 32
        return invented(trial, 0.8, first_good=first_good)

    race = speed.measure(evidence(invent), SUBJECT)
    assert (race.rates, race.factor.median) == ((1.0, 0.01), 1.0)


def test_an_arm_that_is_never_there_is_shown_at_the_rate_that_ends_best() -> None:
    def invent(trial: Trial) -> Outcome:
        if trial.placement == WITHOUT:
            return invented(trial, 0.8)
        return invented(trial, 0.7 if trial.learning_rate == 1.0 else 0.2)

    race = speed.measure(evidence(invent), SUBJECT)
    assert math.isinf(race.steps[0][0])
    assert race.rates[0] == 1.0


def test_the_rate_is_chosen_by_the_valid_split_and_the_accuracy_told_of_the_test_split() -> None:
    def invent(trial: Trial) -> Outcome:
        return replace(
            invented(trial, 0.5), valid_accuracy=trial.learning_rate / 2, test_accuracy=1 - trial.learning_rate
        )

    arm, _ = gradients.measure(evidence(invent), SUBJECT)
    assert (arm.rate, arm.accuracy.median) == (1.0, 0.0)


def test_medians_and_ranges_are_those_of_the_repeats() -> None:
    assert spread_of([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0)


@pytest.mark.parametrize(
    ("before", "first", "verdict"), [(0.8, 0.8, HOLDS), (0.7, 0.8, WEAKLY), (0.8, 0.7, WEAKLY), (0.6, 0.7, NOT_HERE)]
)
def test_placement_is_judged_by_both_sides_and_by_the_first_layer(before: float, first: float, verdict: str) -> None:
    def invent(trial: Trial) -> Outcome:
        accuracy = {"before": before, "first+before": before, "first": first}.get(trial.placement, 0.8)
        return invented(trial, accuracy)

    assert placement.judge(placement.measure(evidence(invent), READ)) == verdict


def test_a_network_that_no_neighbour_disturbs_needs_no_frozen_statistics() -> None:
    def undisturbed(trial: Trial) -> Outcome:
        outcome = invented(trial, 0.8)
        return replace(outcome, readings=tuple(replace(reading, accuracy=0.8) for reading in outcome.readings))

    assert single_instances.judge(single_instances.measure(evidence(lambda one: invented(one, 0.8)))) == HOLDS
    assert single_instances.judge(single_instances.measure(evidence(undisturbed))) == NOT_HERE


gains = st.builds(
    Gains,
    gain=st.floats(-1, 1),
    trains_without=st.booleans(),
    times_fewer_steps=st.floats(0, 100),
    rate_factor=st.floats(0, 100),
    more_scales=st.integers(-5, 5),
)


@given(gains, st.floats(0, 1))
def test_the_more_a_network_gains_the_more_it_needs_batchnorm(found: Gains, more: float) -> None:
    rank = {"does not need BatchNorm": 0, "gains from BatchNorm": 1, "needs BatchNorm": 2}
    assert rank[judge_need(found)] <= rank[judge_need(replace(found, gain=found.gain + more))]


def _vanishing(trial: Trial) -> Outcome:
    return invented(trial, 0.1, ratio=1e-12) if trial.placement == WITHOUT else invented(trial, 0.8)


def test_the_page_says_every_verdict_and_loads_nothing(tmp_path: Path) -> None:
    found = evidence(_vanishing)
    findings = judge_all(found)
    page = write_report(tmp_path, findings, found, digits(), CIRCUMSTANCES).read_text()
    for finding in findings:
        assert finding.title in page
        assert finding.verdict in page
        assert (tmp_path / f"{finding.name}.png").read_bytes().startswith(b"\x89PNG")
    assert "1e-12 times without" in page
    assert CIRCUMSTANCES.command in page
    assert not re.search(r'(?:src|href)="(?!#|data:)|<script|url\((?!#)|@import', page)


def test_what_diverged_at_once_still_makes_a_page(tmp_path: Path) -> None:
    def diverged(trial: Trial) -> Outcome:
        return replace(invented(trial, 0.1), diverged_in=1, curve=(), readings=())

    found = evidence(diverged)
    page = write_report(tmp_path, judge_all(found), found, digits(), CIRCUMSTANCES).read_text()
    assert NOT_SAID in page


def _run(command: StudyCommand) -> str:
    file = io.StringIO()
    console = Console(file=file, width=200)
    run_study(command, console, settings=replace(TINY, rates=(0.1,), weight_scales=(1.0,), repeats=1, steps=2))
    return file.getvalue()


def test_ones_own_network_is_told_whether_it_needs_batchnorm(tmp_path: Path) -> None:
    own = "tests.model_export.study.small:own"
    said = _run(StudyCommand(data="digits", network=own, jobs=1, out=tmp_path, quiet=True))

    assert re.search(r"Your network (needs|gains from|does not need) BatchNorm", said)
    page = (tmp_path / "report.html").read_text()
    assert f"--network {own}" in page
    assert "Placement" in page


def test_the_same_command_again_trains_nothing(tmp_path: Path) -> None:
    command = StudyCommand(data="digits", network="mlp", jobs=1, out=tmp_path, quiet=True)
    first = _run(command)
    kept = (tmp_path / "results.jsonl").read_bytes()
    assert (_run(command), (tmp_path / "results.jsonl").read_bytes()) == (first, kept)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("model_export.study.conduct.run_trials", press)
    with pytest.raises(StudyInterrupted, match="run the same command again") as caught:
        _run(StudyCommand(data="digits", network="mlp", jobs=1, out=tmp_path, quiet=True))
    assert caught.value.exit_code == 130


def test_no_process_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(StudyInvalid, match="--jobs is 0"):
        _run(StudyCommand(data="digits", jobs=0, out=tmp_path))

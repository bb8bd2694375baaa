"""A study is planned, kept, stopped and gone on with; how many processes run it makes no difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_export.data import DataSource, load_splits
from model_export.data.splits import Split
from model_export.errors import DataInvalid, StudyInvalid
from model_export.study.conduct import Watch, conduct, make_header
from model_export.study.data import draw_data
from model_export.study.plan import FULL, QUICK, Study, distinct, own_subject, plan_trials, study_of
from model_export.study.store import NAME, open_results
from model_export.study.trials import Outcome, Settings, Trial
from model_export.study.workers import run_trials
from tests.model_export.study.small import STUDY, SUBJECT, TINY, digits, invented, trial

FEW = replace(STUDY, settings=replace(TINY, rates=(0.1,), weight_scales=(1.0,), repeats=1, steps=2), placed=None)


def _without_time(outcome: Outcome) -> Outcome:
    return replace(outcome, cpu_seconds=0.0)


@pytest.mark.parametrize("settings", [FULL, QUICK, TINY])
def test_the_plan_has_all_six_claims_and_no_trial_twice(settings: Settings) -> None:
    plan = plan_trials(Study(settings=settings))
    assert list(plan) == ["gradients", "initialisation", "learning_rate", "speed", "single_instances", "placement"]
    assert all(plan.values())
    trials = distinct(plan)
    assert len(set(trials)) == len(trials) < sum(map(len, plan.values()))


def test_rates_for_tuning_are_among_all_rates_and_the_usual_scale_among_the_scales() -> None:
    for settings in (FULL, QUICK, TINY):
        assert set(settings.tuning_rates) <= set(settings.rates)
        assert 1.0 in settings.weight_scales


@pytest.mark.parametrize("settings", [FULL, QUICK])
def test_scales_cover_four_decades_and_rates_five(settings: Settings) -> None:
    assert settings.weight_scales[-1] / settings.weight_scales[0] == pytest.approx(1e4)
    assert settings.rates[-1] / settings.rates[0] == pytest.approx(1e5)


def test_every_trial_has_its_partner_in_the_other_arm() -> None:
    trials = set(distinct(plan_trials(study_of(QUICK))))
    for one in trials:
        partner = replace(one, placement="none", read_batches=False)
        assert partner in trials


def test_the_placement_of_ones_own_network_is_not_moved() -> None:
    plan = plan_trials(study_of(TINY, own_subject("mynet:make")))
    assert plan["placement"] == ()
    assert {trial.placement for trial in distinct(plan)} == {"as built", "none"}


def test_one_job_and_two_jobs_have_the_same_outcomes() -> None:
    trials = [trial(placement, seed=seed) for placement in ("before", "none") for seed in (0, 1)]
    alone = {one.trial: _without_time(one) for one in run_trials(trials, digits(), batch_size=32, jobs=1)}
    both = {one.trial: _without_time(one) for one in run_trials(trials[::-1], digits(), batch_size=32, jobs=2)}
    assert alone == both
    assert len(alone) == 4


def test_a_stopped_study_runs_only_what_is_missing(tmp_path: Path) -> None:
    ran: list[Trial] = []

    def stop_after_three(one: Trial) -> None:
        ran.append(one)
        if len(ran) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conduct(FEW, digits(), tmp_path, jobs=1, watch=Watch(begin=lambda _: None, done=stop_after_three))
    first, ran[:] = list(ran), []
    evidence = conduct(FEW, digits(), tmp_path, jobs=1, watch=Watch(begin=lambda _: None, done=ran.append))
    assert not set(first) & set(ran)
    assert {*first, *ran} == set(evidence.outcomes) == set(distinct(plan_trials(FEW)))
    ran.clear()
    again = conduct(FEW, digits(), tmp_path, jobs=1, watch=Watch(begin=lambda _: None, done=ran.append))
    assert (ran, again) == ([], evidence)


def _keep(out: Path, *outcomes: Outcome) -> None:
    with open_results(out, make_header(STUDY, digits())) as results:
        for outcome in outcomes:
            results.add(outcome)


def test_what_was_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    outcome = invented(trial(), 1 / 3, ratio=1e-30)
    _keep(tmp_path, outcome)
    with open_results(tmp_path, make_header(STUDY, digits())) as results:
        assert results.outcomes == {trial(): outcome}


@pytest.mark.parametrize("lost", [1, 5, 100])
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path: Path, lost: int) -> None:
    outcomes = (invented(trial(seed=0), 0.5), invented(trial(seed=1), 0.6))
    _keep(tmp_path, *outcomes)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[:-lost])
    with open_results(tmp_path, make_header(STUDY, digits())) as results:
        assert list(results.outcomes) == [outcomes[0].trial]
        results.add(outcomes[1])
    assert (tmp_path / NAME).read_bytes() == whole


def test_a_torn_header_is_a_file_that_was_never_begun(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b'{"data_na')
    _keep(tmp_path, invented(trial(), 0.5))
    assert len((tmp_path / NAME).read_bytes().splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"data_sha256": "0" * 64}, "expected data_sha256"),
        ({"batch_size": 7}, "expected batch_size 7, found 32"),
        ({"format_version": 2}, "expected format_version 2, found 1"),
        ({"network_sha256": "ab"}, "expected network_sha256"),
    ],
)
def test_the_results_of_another_study_are_refused(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    _keep(tmp_path, invented(trial(), 0.5))
    header = replace(make_header(STUDY, digits()), **change)  # type: ignore[arg-type]
    with pytest.raises(StudyInvalid, match=complaint) as caught, open_results(tmp_path, header):
        pass
    assert "choose another --out" in str(caught.value)


@pytest.mark.parametrize("content", [b"hello\n", b"[1]\n", b"\xff\xfe\n", b"3\n"])
def test_what_is_no_results_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(StudyInvalid, match="is no results file"):
        _keep(tmp_path)
    assert (tmp_path / NAME).read_bytes() == content


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    _keep(tmp_path, invented(trial(), 0.5))
    with (tmp_path / NAME).open("ab") as stream:
        stream.write(b'{"trial": 5}\n')
    with pytest.raises(StudyInvalid, match="line 3"):
        _keep(tmp_path)


def test_two_studies_do_not_write_to_one_file(tmp_path: Path) -> None:
    with open_results(tmp_path, make_header(STUDY, digits())), pytest.raises(StudyInvalid, match="another study"):
        _keep(tmp_path)


def test_a_changed_factory_is_another_study() -> None:
    own = study_of(TINY, own_subject("tests.model_export.study.small:own"))
    header = make_header(own, digits())
    assert header == make_header(own, digits())
    assert header.network_sha256 != make_header(STUDY, digits()).network_sha256 == ""


def test_data_is_drawn_by_class_and_always_the_same() -> None:
    splits = load_splits(DataSource(spec="digits"))
    first, second = draw_data(splits, TINY), draw_data(splits, TINY)
    assert first.sha256 == second.sha256 != draw_data(splits, replace(TINY, num_train=100)).sha256
    assert set(first.train.labels.tolist()) == set(range(10))
    assert abs(len(first.train) - TINY.num_train) <= 5  # each class is rounded


def test_a_stream_is_refused_with_the_way_out() -> None:
    splits = load_splits(DataSource(spec="digits"))
    object.__setattr__(splits, "train", iter(()))
    assert not isinstance(splits.train, Split)
    with pytest.raises(DataInvalid, match=r"write the instances to study into an \.npz file"):
        draw_data(splits, TINY)


def test_the_subject_is_part_of_the_trial() -> None:
    assert trial().hidden == SUBJECT.hidden

"""A training run of the study: both arms begin alike, see the same, and are measured rightly."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from model_export.errors import NetworkInvalid
from model_export.study.course import gradient_norms, looks, minibatches, run_trial
from model_export.study.networks import build_trial_network, weights
from model_export.study.plan import PLACEMENTS
from model_export.study.readings import measure_accuracy, read_all
from model_export.study.replacing import BatchStatistics, Shift, replace_batchnorms, without_normalising
from model_export.study.trials import AS_BUILT, WITHOUT, Trial
from tests.model_export.study.small import READ, STUDY, TINY, digits, trial

FLOAT64 = 1e-12  # a few roundings of sums of some hundred products


def _own(placement: str, name: str = "own") -> Trial:
    return replace(trial(placement), network=f"tests.model_export.study.small:{name}", activation=None, hidden=None)


@pytest.mark.parametrize("placement", [name for name in PLACEMENTS if name != WITHOUT])
def test_every_placement_begins_with_the_weights_of_the_network_without(placement: str) -> None:
    having, lacking = (weights(build_trial_network(trial(name), digits())) for name in (placement, WITHOUT))
    assert all(torch.equal(a, b) for a, b in zip(having, lacking, strict=True))


def test_another_seed_draws_other_weights() -> None:
    first, second = (weights(build_trial_network(trial(seed=seed), digits())) for seed in (0, 1))
    assert not torch.equal(first[0], second[0])


def test_the_scale_multiplies_weights_and_nothing_else() -> None:
    once, ten = (build_trial_network(trial(scale=scale), digits()).state_dict() for scale in (1.0, 10.0))
    for name in once:
        factor = 10.0 if name.endswith("weight") and name.startswith("dense") else 1.0
        assert torch.equal(once[name] * factor if factor != 1 else once[name], ten[name]), name


def test_the_generator_of_torch_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run_trial(trial(), digits(), TINY.batch_size)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_both_arms_of_ones_own_network_begin_alike_and_the_one_without_has_a_shift() -> None:
    having, lacking = (build_trial_network(_own(placement), digits()) for placement in (AS_BUILT, WITHOUT))
    assert all(torch.equal(a, b) for a, b in zip(weights(having), weights(lacking), strict=True))
    kinds = [type(layer) for layer in lacking.modules()]
    assert (kinds.count(Shift), kinds.count(nn.BatchNorm1d)) == (1, 0)


def test_a_network_without_batchnorm_is_no_subject() -> None:
    with pytest.raises(NetworkInvalid, match="has no BatchNorm"):
        build_trial_network(_own(AS_BUILT, "plain"), digits())


def test_a_shared_batchnorm_is_replaced_by_one_shared_layer() -> None:
    shared = nn.BatchNorm1d(4)
    network = nn.Sequential(nn.Linear(4, 4), shared, nn.Linear(4, 4), shared)
    replaced = list(replace_batchnorms(network, without_normalising).children())
    assert isinstance(replaced[1], Shift)
    assert network[1] is shared  # what was given is as it was
    names = [name for name, _ in replace_batchnorms(network, without_normalising).named_modules(remove_duplicate=False)]
    assert names == ["", "0", "1", "2", "3"]
    assert len(replaced) == 3  # `children` names a shared layer once


def test_batches_have_one_size_and_an_epoch_sees_no_instance_twice() -> None:
    batches = list(islice(minibatches(10, 4, seed=0), 4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4]
    assert len(set(torch.cat(batches[:2]).tolist())) == 8
    assert all(torch.equal(a, b) for a, b in zip(batches, minibatches(10, 4, seed=0), strict=False))


def test_looks_begin_with_the_first_step_and_end_with_the_last() -> None:
    for steps in (1, 2, 7, 1500):
        found = looks(steps, 24)
        assert (found[0], found[-1], list(found)) == (1, steps, sorted(set(found)))


def test_the_measured_gradients_are_those_of_the_step_by_hand() -> None:
    """The first batch of the run, without an optimizer, by autograd."""
    outcome = run_trial(trial(), digits(), TINY.batch_size)
    network = build_trial_network(trial(), digits())
    batch = next(minibatches(len(digits().train), TINY.batch_size, seed=0))
    loss = cross_entropy(
        network(torch.from_numpy(digits().train.instances)[batch]), torch.from_numpy(digits().train.labels)[batch]
    )
    layers = [layer.weight for layer in network.children() if isinstance(layer, nn.Linear)]
    gradients = torch.autograd.grad(loss, layers)
    first, last = (float(np.sqrt((gradients[index].double().numpy() ** 2).sum())) for index in (0, -1))
    assert outcome.curve[0].first_gradient == pytest.approx(first, rel=1e-6)  # float32 sums, in the same order
    assert outcome.curve[0].last_gradient == pytest.approx(last, rel=1e-6)


def test_gradient_norms_are_of_the_outermost_weights_only() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2), nn.Linear(2, 1))
    network[1].weight.grad, network[2].weight.grad = torch.full((2, 2), 3.0), torch.full((1, 2), 2.0)
    assert gradient_norms(network) == pytest.approx((6.0, 8**0.5), rel=FLOAT64)


def test_a_run_that_diverges_is_an_outcome_and_answers_with_chance() -> None:
    outcome = run_trial(trial(WITHOUT, rate=1e38), digits(), TINY.batch_size)
    assert outcome.diverged_in is not None
    assert outcome.diverged_in <= 3
    assert (outcome.test_accuracy, outcome.readings) == (digits().chance, ())


def test_a_run_that_diverges_with_batchnorm_is_one_too() -> None:
    outcome = run_trial(trial(rate=1e38), digits(), TINY.batch_size)
    assert (outcome.diverged_in is not None, outcome.test_accuracy) == (True, digits().chance)


@pytest.mark.parametrize("shape", [(5, 3), (1, 3), (4, 3, 6)])
def test_statistics_of_a_batch_are_its_mean_and_biased_variance(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    batchnorm = nn.BatchNorm1d(3, eps=1e-3).double()
    nn.init.uniform_(batchnorm.weight, generator=generator)
    nn.init.uniform_(batchnorm.bias, generator=generator)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    values = np.moveaxis(x.numpy(), 1, -1).reshape(-1, 3)
    normal = (values - values.mean(axis=0)) / np.sqrt(values.var(axis=0) + 1e-3)
    expected = normal * batchnorm.weight.detach().numpy() + batchnorm.bias.detach().numpy()
    found = BatchStatistics(batchnorm)(x).detach().numpy()
    np.testing.assert_allclose(np.moveaxis(found, 1, -1).reshape(-1, 3), expected, atol=FLOAT64, rtol=0)


def test_an_instance_alone_is_answered_without_being_looked_at() -> None:
    answer = BatchStatistics(nn.BatchNorm1d(3))(torch.randn(1, 3))
    assert torch.equal(answer, torch.zeros(1, 3))


def test_readings_know_every_source_and_leave_the_network_alone() -> None:
    read = STUDY.trials(READ, "first+after", 0.1)[0]
    network = build_trial_network(read, digits())
    network(torch.from_numpy(digits().train.instances))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    readings = {(reading.source, reading.batch_size): reading.accuracy for reading in read_all(network, digits())}
    assert len(readings) == 2 + 2 * 4
    assert readings["shuffled", 1] == readings["sorted", 1]  # nobody else is there, whatever the order
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_an_answer_that_is_no_number_has_no_accuracy() -> None:
    dense = nn.Linear(64, 10)
    nn.init.constant_(dense.weight, torch.nan)
    network = nn.Sequential(nn.Flatten(), dense)
    assert measure_accuracy(network, digits().test) is None

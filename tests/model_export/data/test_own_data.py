"""Data of one's own: read by name, trained as a stream, measured whole, the same each time."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from model_export.data import DataSource, Splits, load_splits
from model_export.data.labelled_batch import check_batch
from model_export.data.share import Share
from model_export.data.stream import CalibrationStream, StreamedSplit
from model_export.data.whole import whole_set
from model_export.errors import DataInvalid
from tests.model_export.own_data import NUM_LABELS, NUM_OTHERS, NUM_TRAIN, Points


def load(name: str) -> Splits:
    return load_splits(DataSource(spec=f"tests.model_export.own_data:{name}"))


def stream(splits: Splits) -> StreamedSplit:
    assert isinstance(splits.train, StreamedSplit)
    return splits.train


def calibration(splits: Splits) -> CalibrationStream:
    return stream(splits).calibration


def batches(loader: Any) -> torch.Tensor:
    return torch.cat([instances for instances, _ in loader])


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Plain", "make"])
def test_a_class_or_a_function_gives_three_splits(name: str) -> None:
    splits = load(name)
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (NUM_TRAIN, NUM_OTHERS, NUM_OTHERS)
    assert splits.instance_shape == (4,)
    assert splits.labels == ("0", "1", "2")
    assert splits.test.instances.dtype == np.float32
    assert np.array_equal(splits.test.instances, Points(NUM_OTHERS, seed=2).points.numpy())


def test_the_modules_own_labels_name_the_classes() -> None:
    assert load("Noisy").labels == ("low", "middle", "high")


def test_the_digest_is_the_same_each_time_and_another_for_other_data() -> None:
    assert load("Plain").sha256 == load("make").sha256 != load("Noisy").sha256


def test_a_training_stream_has_no_array_and_says_what_has() -> None:
    with pytest.raises(DataInvalid, match=r"training instances are a stream .* Splits\.calibration"):
        _ = load("Plain").train.instances


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Plane", "has no class or function 'Plane'. Did you mean .*:Plain"),
        ("number", "expected a subclass of LightningDataModule, .* found int"),
        ("WithoutTest", r"WithoutTest has no test_dataloader\(\): define it"),
        ("Broken", r"Broken\.setup\('fit'\) failed: RuntimeError\('no such luck in fit'\)"),
        ("Unlabelled", r"val_dataloader\(\): expected batches \(instances, labels\), found Tensor"),
        ("TooFewNames", r"labels names 2 classes, and there is a label 2"),
        ("Infinite", r"test_dataloader\(\): 1 values are missing, infinite"),
    ],
)
def test_what_can_not_be_read_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        load(name)


# What is trained on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Noisy", "InWorkers"])
def test_an_epoch_follows_from_its_seed_alone(name: str) -> None:
    def epoch(seed: int) -> torch.Tensor:
        torch.rand(3)  # whatever the caller does in between
        return batches(stream(load(name)).epoch(seed, num_labels=NUM_LABELS))

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


def test_a_stream_leaves_the_callers_random_numbers_alone() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002, S311

    def seed() -> None:
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        random.seed(7)

    seed()
    expected = [draw() for _ in range(3)]
    epoch = stream(load("Noisy")).epoch(1, num_labels=NUM_LABELS)
    seed()
    drawn = [draw() for _, _ in zip(range(3), epoch, strict=False)]
    assert drawn == expected


def test_processes_share_an_epoch_and_none_sees_what_another_sees() -> None:
    train = stream(load("Plain"))
    shares = [batches(train.epoch(5, num_labels=NUM_LABELS, share=Share(rank=rank, of=2))) for rank in range(2)]
    assert {len(share) for share in shares} == {48}  # 51 of 102 each, of which drop_last drops three
    seen = torch.cat(shares)
    assert len(torch.unique(seen, dim=0)) >= len(seen) - 1  # one is there twice, for 2 does not divide 101
    points = {tuple(point) for point in Points(NUM_TRAIN, seed=0).points.tolist()}
    assert {tuple(point) for point in seen.tolist()} <= points


def test_a_loader_without_a_length_is_refused_with_the_remedy() -> None:
    with pytest.raises(DataInvalid, match="give the iterable dataset a __len__"):
        stream(load("WithoutLength")).epoch(0, num_labels=NUM_LABELS)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2)), r"labels that are whole numbers, of shape \(2,\), found torch.float32"),
        ((torch.zeros(2, 3), torch.tensor([0, 3])), "expected labels from 0 to 2, found 3"),
        ((torch.zeros(2, 3), torch.tensor([0, -1])), "expected labels from 0 to 2, found -1"),
        ((torch.zeros(2), torch.tensor([0, 1])), "two axes at least"),
        ((torch.full((2, 3), 1e39, dtype=torch.float64), torch.tensor([0, 1])), "6 values are missing, infinite or"),
        ((torch.full((2, 3), 2**24 + 1), torch.tensor([0, 1])), r"whole numbers beyond ±16,777,216"),
        ((["a", "b"], torch.tensor([0, 1])), "expected a tensor or an array, found list"),
        ((np.array(["a", "b"]), torch.tensor([0, 1])), "expected numbers, found dtype <U1"),
    ],
)
def test_a_batch_that_float32_or_the_loss_could_not_take_is_refused(batch: Any, message: str) -> None:
    with pytest.raises(DataInvalid, match=message):
        check_batch(batch, where="here", num_labels=3)


def test_large_finite_values_pass_although_their_sum_overflows() -> None:
    values = torch.full((2, 3), 3e38)
    assert torch.equal(check_batch((values, torch.tensor([0, 1])), where="here")[0], values)


# What is measured over ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Plain", "Noisy"])
def test_calibration_is_every_training_instance_once_in_order(name: str) -> None:
    measured = torch.cat(list(calibration(load(name))))
    assert torch.equal(measured, Points(NUM_TRAIN, seed=0).points)


@pytest.mark.parametrize("name", ["NoisyEverywhere", "NoisyEverywhereInWorkers"])
def test_calibration_is_the_same_each_time(name: str) -> None:
    splits = load(name)
    first, second, again = (torch.cat(list(calibration(s))) for s in (splits, splits, load(name)))
    assert torch.equal(first, second)
    assert torch.equal(first, again)
    assert len(calibration(splits)) == len(list(calibration(splits)))


def test_a_calibration_set_without_a_length_is_counted() -> None:
    splits = load("WithoutLength")
    assert len(splits.train) == NUM_TRAIN
    assert len(calibration(splits)) == len(list(calibration(splits)))


SET = TensorDataset(torch.arange(7.0)[:, None], torch.zeros(7, dtype=torch.long))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 2, "shuffle": True, "drop_last": True}, [0, 1, 2, 3, 4, 5, 6]),
        ({"batch_size": 3, "sampler": SequentialSampler(SET)}, [0, 1, 2, 3, 4, 5, 6]),
        ({"batch_size": 3, "sampler": SubsetRandomSampler([5, 1, 3])}, [1, 3, 5]),
        ({"batch_sampler": BatchSampler(RandomSampler(SET), 2, drop_last=True)}, [0, 1, 2, 3, 4, 5, 6]),
        ({"batch_sampler": [[6, 0], [2]]}, [6, 0, 2]),
        ({"batch_size": 2, "sampler": WeightedRandomSampler([0, 0, 0, 0, 1], 3)}, [4, 4, 4]),
    ],
)
def test_the_whole_set_is_found_behind_a_training_loader(options: dict[str, Any], expected: list[int]) -> None:
    loader, num_instances = whole_set(DataLoader(SET, **options))
    assert batches(loader)[:, 0].tolist() == expected
    assert num_instances in {None, len(expected)}

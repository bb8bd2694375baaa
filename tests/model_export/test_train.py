"""Training runs: that they learn, that they can be repeated and resumed bit for bit, and that they end cleanly."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch

from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.data import DataSource
from model_export.data.idx import DEBIAN_DIR
from model_export.errors import CheckpointInvalid, NetworkInvalid
from model_export.networks import NetworkOptions, Placement
from model_export.options import TrainingOptions
from model_export.run_folder import claim
from model_export.train import TrainingInterrupted, measure_accuracy, resume, train
from tests.model_export.runs import DIGITS, DIVERGING, FIXED, STEPS_IN_AN_EPOCH, WATCHED, Watched, small_run

IN_THE_THIRD_EPOCH = 2 * STEPS_IN_AN_EPOCH + 4


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def _nobody_presses_anything() -> Iterator[None]:
    Watched.in_step = {}
    yield
    Watched.in_step = {}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).state_dict


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """By not one bit different."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# What is learned ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["elu", "relu", "sigmoid"])
@pytest.mark.parametrize("placement", get_args(Placement))
def test_every_placement_learns_the_digits_with_bounded_and_unbounded_activations(
    tmp_path: Path, placement: Placement, activation: Any
) -> None:
    network = NetworkOptions(placement=placement, activation=activation, hidden=(64,))
    assert small_run(tmp_path, network=network, epochs=6, batch_size=64).test_accuracy > 0.9  # chance is 0.1


def test_the_book_network_with_default_options_puts_97_of_100_digits_right(tmp_path: Path) -> None:
    result = train(DIGITS, NetworkOptions(), TrainingOptions(), run_dir=tmp_path, device="cpu", progress=False)
    assert result.test_accuracy >= 0.97


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_DIR.is_dir(), reason="needs the package dataset-fashion-mnist")
@pytest.mark.parametrize(("network", "epochs", "accuracy"), [("mlp", 10, 0.88), ("convnet", 10, 0.91)])
def test_fashion_mnist_is_learned(tmp_path: Path, network: str, epochs: int, accuracy: float) -> None:
    result = train(
        DataSource(spec="fashion-mnist"),
        NetworkOptions(network=network),
        TrainingOptions(epochs=epochs),
        run_dir=tmp_path,
        progress=False,
    )
    assert result.test_accuracy >= accuracy


def test_the_moving_averages_follow_the_data(tmp_path: Path) -> None:
    """After 30 steps with momentum 0.1 the first batch still counts 0.04: the mean of raw pixels is close."""
    path = small_run(tmp_path).last_path
    pixels = load_splits_of(read_checkpoint(path)).train.instances.reshape(-1, 64)
    tolerance = 1.0  # of values 0..16: batches of 128 differ by about 0.5 in their mean
    assert np.abs(weights(path)["batchnorm0.running_mean"].numpy() - pixels.mean(axis=0)).max() < tolerance


def test_standardise_is_set_from_the_training_split_before_the_first_step(tmp_path: Path) -> None:
    path = small_run(tmp_path, network=NetworkOptions(placement="none", hidden=(8,))).best_path
    pixels = load_splits_of(read_checkpoint(path)).train.instances.reshape(-1, 64).astype(np.float64)
    rounding = 1e-6  # to float32, of values up to 16
    assert np.allclose(weights(path)["standardise.mean"], pixels.mean(axis=0), rtol=rounding)


def test_bfloat16_trains_and_keeps_float32_weights(tmp_path: Path) -> None:
    result = small_run(tmp_path, precision="bf16", epochs=4)
    assert result.test_accuracy > 0.8
    assert {tensor.dtype for tensor in weights(result.best_path).values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_steps_in_blocks_are_those_of_single_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Within a block bfloat16 copies of weights must not outlive a step of the optimiser."""
    blocks = small_run(tmp_path / "blocks", precision=precision, epochs=2)
    monkeypatch.setattr("model_export.training.task.BATCHES_IN_A_BLOCK", 1)
    single = small_run(tmp_path / "single", precision=precision, epochs=2)
    assert equal(weights(blocks.last_path), weights(single.last_path))
    assert blocks.run == single.run


def test_images_laid_out_channels_last_are_learned_alike_and_saved_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NetworkOptions(network="convnet", hidden=(4,))
    usual = small_run(tmp_path / "usual", network=network, epochs=1)
    monkeypatch.setattr("model_export.train.lies_channels_last", lambda *_: True)
    other = small_run(tmp_path / "other", network=network, epochs=1)
    rounding = 1e-3  # of ten steps, in which sums are taken in another order
    assert other.run.history[0].train_loss == pytest.approx(usual.run.history[0].train_loss, rel=rounding)
    assert {name: tensor.shape for name, tensor in weights(other.best_path).items()} == {
        name: tensor.shape for name, tensor in weights(usual.best_path).items()
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_gpu_learns_images(tmp_path: Path, precision: Any) -> None:
    result = train(
        DIGITS,
        NetworkOptions(network="convnet"),
        TrainingOptions(epochs=6, precision=precision),
        run_dir=tmp_path,
        device="cuda",
        progress=False,
    )
    assert result.test_accuracy > 0.95


# What is reported -----------------------------------------------------------------------------------------------------


def test_the_test_accuracy_is_that_of_the_best_checkpoint(tmp_path: Path) -> None:
    result = small_run(tmp_path)
    checkpoint = read_checkpoint(result.best_path)
    network, test = load_network(checkpoint).eval(), load_splits_of(checkpoint).test
    with torch.no_grad():
        predicted = network(torch.from_numpy(test.instances)).numpy().argmax(axis=1)
    assert result.test_accuracy == np.mean(predicted == test.labels)


def test_the_best_checkpoint_has_the_valid_accuracy_that_its_history_says(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(small_run(tmp_path).best_path)
    rounding = 1e-6  # the history's was summed in float32
    accuracy = measure_accuracy(load_network(checkpoint).eval(), load_splits_of(checkpoint).valid)
    assert accuracy == pytest.approx(checkpoint.run.history[-1].valid_accuracy, abs=rounding)
    assert checkpoint.run.best == checkpoint.run.history[-1]


def test_an_accuracy_is_not_measured_in_training_mode(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(small_run(tmp_path, epochs=1).best_path)
    with pytest.raises(NetworkInvalid, match=r"say network\.eval"):
        measure_accuracy(load_network(checkpoint), load_splits_of(checkpoint).valid)


# What is left behind --------------------------------------------------------------------------------------------------


def test_a_run_leaves_two_checkpoints_and_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small_run(tmp_path / "run", epochs=1)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["best.ckpt", "last.ckpt", "run"]
    assert capfd.readouterr() == ("", "")


def test_a_run_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002, S311

    def seed() -> None:
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        random.seed(7)

    seed()
    expected = draw()
    seed()
    small_run(tmp_path, epochs=1)
    assert draw() == expected


def test_a_run_does_not_write_over_another_unless_told_to(tmp_path: Path) -> None:
    small_run(tmp_path, epochs=1)
    with pytest.raises(CheckpointInvalid, match=r"holds a run already: .* --overwrite, or .* --resume .*last\.ckpt"):
        small_run(tmp_path, epochs=1)
    assert len(small_run(tmp_path, epochs=2, overwrite=True).run.history) == 2


# What can be repeated -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = (
        weights(small_run(tmp_path / name, seed=seed, epochs=1).last_path)
        for name, seed in (("first", 0), ("second", 0), ("other", 1))
    )
    assert equal(first, second)
    assert not equal(first, other)


def test_an_interrupted_run_that_is_resumed_equals_one_that_was_not(tmp_path: Path) -> None:
    whole = small_run(tmp_path / "whole", network=WATCHED, epochs=4)
    Watched.in_step = {IN_THE_THIRD_EPOCH: press_ctrl_c}
    with pytest.raises(TrainingInterrupted):
        small_run(tmp_path / "cut", network=WATCHED, epochs=4)
    assert len(read_checkpoint(tmp_path / "cut" / "last.ckpt").run.history) == 2
    Watched.in_step = {}
    resumed = resume(tmp_path / "cut" / "last.ckpt", device="cpu", progress=False)
    assert equal(weights(resumed.last_path), weights(whole.last_path))
    assert equal(weights(resumed.best_path), weights(whole.best_path))
    assert resumed.run == whole.run


@pytest.mark.parametrize("complete", [1, 2, 3])
def test_a_run_interrupted_between_its_two_checkpoints_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: int
) -> None:
    """With this seed each epoch is the best so far, so each writes two checkpoints."""
    whole = small_run(tmp_path / "whole", network=WATCHED, epochs=4)
    names: list[str] = []

    def replace(draft: Path, path: Path) -> Path:
        names.append(path.name)
        if len(names) == 2 * complete + 2:
            press_ctrl_c()
        return rename(draft, path)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(TrainingInterrupted):
        small_run(tmp_path / "cut", network=WATCHED, epochs=4)
    monkeypatch.undo()
    assert set(names[-2:]) == {"best.ckpt", "last.ckpt"}
    resumed = resume(tmp_path / "cut" / "last.ckpt", device="cpu", progress=False)
    assert equal(weights(resumed.last_path), weights(whole.last_path))
    assert equal(weights(resumed.best_path), weights(whole.best_path))


@pytest.mark.parametrize("network", [DIVERGING, NetworkOptions(network="tests.model_export.runs:absent")])
def test_an_old_run_is_not_given_up_for_one_that_fails(tmp_path: Path, network: NetworkOptions) -> None:
    old = weights(small_run(tmp_path, epochs=1).last_path)
    with pytest.raises(NetworkInvalid):
        small_run(tmp_path, network=network, overwrite=True)
    assert equal(weights(tmp_path / "last.ckpt"), old)
    assert (tmp_path / "best.ckpt").exists()


def test_ctrl_c_in_the_first_epoch_keeps_the_old_run_and_does_not_offer_to_resume_it(tmp_path: Path) -> None:
    old = weights(small_run(tmp_path, epochs=1).last_path)
    Watched.in_step = {1: press_ctrl_c}
    with pytest.raises(TrainingInterrupted, match="no epoch was complete: start again"):
        small_run(tmp_path, network=WATCHED, overwrite=True)
    assert equal(weights(tmp_path / "last.ckpt"), old)


def test_ctrl_c_between_the_first_two_checkpoints_leaves_no_last_of_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_run(tmp_path, epochs=1)

    def replace(draft: Path, path: Path) -> Path:
        if path.name == "last.ckpt":
            press_ctrl_c()
        return rename(draft, path)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(TrainingInterrupted):
        small_run(tmp_path, network=WATCHED, overwrite=True)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]
    assert read_checkpoint(tmp_path / "best.ckpt").run.spec.options.network == WATCHED.network


def test_a_runs_folder_may_be_moved_before_it_is_resumed(tmp_path: Path) -> None:
    Watched.in_step = {IN_THE_THIRD_EPOCH: press_ctrl_c}
    with pytest.raises(TrainingInterrupted):
        small_run(tmp_path / "here", network=WATCHED)
    Watched.in_step = {}
    (tmp_path / "here").rename(tmp_path / "there")
    resume(tmp_path / "there" / "last.ckpt", device="cpu", progress=False)
    assert not (tmp_path / "here").exists()


# How it ends ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on_and_works_again_afterwards(tmp_path: Path) -> None:
    Watched.in_step = {IN_THE_THIRD_EPOCH: press_ctrl_c}
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match=r"interrupted: go on with --resume .*last\.ckpt"):
        small_run(tmp_path, network=WATCHED)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_the_first_epoch_says_that_there_is_nothing_to_resume(tmp_path: Path) -> None:
    Watched.in_step = {1: press_ctrl_c}
    with pytest.raises(TrainingInterrupted, match="no epoch was complete: start again"):
        small_run(tmp_path, network=WATCHED)


def test_a_loss_that_is_no_number_ends_the_run_with_step_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(NetworkInvalid, match=r"the loss is nan in step 3 \(epoch 1\): try a smaller --learning-rate"):
        small_run(tmp_path, network=DIVERGING)


def test_a_run_out_of_patience_stops_early_and_is_over(tmp_path: Path) -> None:
    result = small_run(tmp_path, epochs=40, patience=1, learning_rate=0.03)
    history = result.run.history
    assert len(history) < 40
    assert history[-1].valid_accuracy <= history[-2].valid_accuracy
    with pytest.raises(CheckpointInvalid, match=f"over after {len(history)} epochs"):
        resume(result.last_path, progress=False)


def test_a_finished_run_can_not_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="this run was over after 1 epochs"):
        resume(small_run(tmp_path, epochs=1).last_path, progress=False)


def test_a_network_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkInvalid, match="runs:fixed has no parameter that can be trained"):
        small_run(tmp_path, network=FIXED)


@pytest.mark.parametrize("place", ["file", "file/inside"])
def test_a_file_in_the_place_of_the_runs_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointInvalid, match=r"can not be a run's folder: .* choose another --out"):
        small_run(tmp_path / place)


def test_a_folder_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").mkdir()
    with pytest.raises(CheckpointInvalid, match=r"best\.ckpt is a folder, where a checkpoint would go"):
        small_run(tmp_path, overwrite=True)


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(CheckpointInvalid, match="another training writes into"):
        small_run(tmp_path)
    (tmp_path / "training.lock").touch()  # left over by a process that was killed
    small_run(tmp_path, epochs=1)


@pytest.mark.parametrize(("placement", "num_warnings"), [("first", 1), ("none", 0)])
def test_a_column_far_from_zero_is_warned_of_where_batchnorm_stands_first(
    tmp_path: Path, placement: Placement, num_warnings: int
) -> None:
    random = np.random.default_rng(0)
    near, north = random.normal(size=200), random.normal(52.1, 0.01, size=200)
    table = pd.DataFrame({"near": near, "latitude": north, "colour": ["red", "blue"] * 100, "wide": near > 0})
    table.to_csv(tmp_path / "places.csv", index=False)
    warnings: list[str] = []
    train(
        DataSource(spec=str(tmp_path / "places.csv"), target="wide"),
        NetworkOptions(placement=placement, hidden=(4,)),
        TrainingOptions(epochs=1),
        run_dir=tmp_path / "run",
        device="cpu",
        progress=False,
        warn=warnings.append,
    )
    assert len(warnings) == num_warnings
    assert all(sentence.startswith("latitude: the mean is more than 1000 times") for sentence in warnings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkInvalid, match="--device cuda: PyTorch finds no CUDA device"):
        train(DIGITS, NetworkOptions(), TrainingOptions(), run_dir=tmp_path, device="cuda", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs is 0: expected 1 or more"),
        ({"batch_size": 1}, "--batch-size is 1: expected 2 or more, for BatchNorm"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"precision": "16"}, "--precision is 16: expected 32 or bf16"),
        ({"patience": 0}, "--patience is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkInvalid, match=message):
        TrainingOptions(**options)

"""The checkpoint: what went in comes out, and whatever is no checkpoint of ours is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from model_export.checkpoint import load_network, load_splits_of, read_checkpoint
from model_export.data import DataSource
from model_export.errors import CheckpointInvalid
from service.bundle import Feature
from tests.model_export.runs import small_run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run over a table of 200 rows, which lies beside it as table.csv."""
    folder = tmp_path_factory.mktemp("table")
    random = np.random.default_rng(0)
    width = random.normal(size=200).round(3)
    frame = pd.DataFrame({"width": width, "colour": random.choice(["red", "blue"], 200), "wide": width > 0})
    frame.to_csv(folder / "table.csv", index=False)
    source = DataSource(spec=str(folder / "table.csv"), target="wide")
    return small_run(folder, source=source, epochs=2).best_path


def changed(path: Path, folder: Path, **entry: Any) -> Path:
    """A copy of the checkpoint at `path` in which our own entry says something else."""
    content = torch.load(path, weights_only=True)
    content["foldserve"] |= entry
    torch.save(content, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def test_a_checkpoint_tells_all_that_is_known_of_its_run(table: Path) -> None:
    run = read_checkpoint(table).run
    assert run.spec.instance_shape == (3,)
    assert run.spec.options.placement == "first+after"
    assert run.source.target == "wide"
    assert run.options.epochs == 2
    assert run.labels == ("False", "True")
    assert run.features == (Feature(name="width"), Feature(name="colour", categories=("blue", "red")))
    assert [epoch.epoch for epoch in run.history] == list(range(1, len(run.history) + 1))


def test_the_network_comes_back_with_its_weights_in_training_mode(table: Path) -> None:
    checkpoint = read_checkpoint(table)
    network = load_network(checkpoint)
    assert network.training
    assert all(torch.equal(value, checkpoint.state_dict[name]) for name, value in network.state_dict().items())


def test_loading_a_network_draws_no_random_numbers_from_the_caller(table: Path) -> None:
    before = torch.random.get_rng_state()
    load_network(read_checkpoint(table))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_data_is_loaded_again_and_refused_when_it_changed(table: Path) -> None:
    checkpoint = read_checkpoint(table)
    assert load_splits_of(checkpoint).sha256 == checkpoint.run.data_sha256
    csv = Path(checkpoint.run.source.spec)
    original = csv.read_text()
    csv.write_text(original.replace("red", "rot"))
    try:
        with pytest.raises(CheckpointInvalid, match=r"was trained on other data than .*table\.csv' holds now"):
            load_splits_of(checkpoint)
    finally:
        csv.write_text(original)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"there is no checkpoint .*best\.ckpt"):
        read_checkpoint(tmp_path / "best.ckpt")


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"PK\x03\x04 a broken zip file", b"a,b\n1,2\n", b"width,kind\n0.5,x\n", b"0.5\n"]
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=r"best\.ckpt is no checkpoint, or a damaged one"):
        read_checkpoint(path)


def test_a_checkpoint_that_was_cut_short_is_refused(table: Path, tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(table.read_bytes()[:-1000])
    with pytest.raises(CheckpointInvalid, match="is no checkpoint, or a damaged one"):
        read_checkpoint(path)


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"foldserve": tmp_path.joinpath}, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointInvalid, match="UnpicklingError while reading"):
        read_checkpoint(tmp_path / "best.ckpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [(torch.zeros(2), "expected a mapping, found Tensor"), ({"state_dict": {}}, "was not written by foldserve")],
)
def test_what_someone_else_saved_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(CheckpointInvalid, match=message):
        read_checkpoint(tmp_path / "best.ckpt")


def test_another_format_version_is_refused_by_name(table: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="has format version 2, this foldserve reads version 1"):
        read_checkpoint(changed(table, tmp_path, format_version=2))


def test_an_entry_of_another_form_is_refused_with_the_place(table: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"Expected `str`, got `int` - at `\$\.labels\[0\]`"):
        read_checkpoint(changed(table, tmp_path, labels=[1, 2]))


def test_weights_that_do_not_fit_the_network_are_refused_with_the_layer(table: Path, tmp_path: Path) -> None:
    spec = torch.load(table, weights_only=True)["foldserve"]["spec"]
    path = changed(table, tmp_path, spec={**spec, "instance_shape": [4]})
    with pytest.raises(CheckpointInvalid, match=r"(?s)the weights do not fit mlp: .*dense1\.weight"):
        load_network(read_checkpoint(path))

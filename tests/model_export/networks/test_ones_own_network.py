"""A network of one's own, named as `package.module:factory`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from torch import nn

from model_export.errors import NetworkInvalid
from model_export.networks import NetworkOptions, build_network, specify

MODULE = "ones_own_networks_of_a_test"
SOURCE = """
from torch import nn

def good(instance_shape, num_outputs):
    return nn.Sequential(nn.BatchNorm1d(instance_shape[0]), nn.Linear(instance_shape[0], num_outputs))

def narrow(instance_shape, num_outputs):
    return nn.Linear(instance_shape[0], num_outputs - 1)

def mistaken(instance_shape, num_outputs):
    return nn.Linear(instance_shape[0] + 1, num_outputs)

def failing(instance_shape, num_outputs):
    raise ValueError("no such luck")

def nothing(instance_shape, num_outputs):
    return None
"""


@pytest.fixture(autouse=True)
def _module_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)


def build(name: str) -> nn.Module:
    return build_network(specify(NetworkOptions(network=name), instance_shape=(5,), num_outputs=3))


def test_a_factory_in_the_current_folder_is_found_and_the_import_path_given_back() -> None:
    before = list(sys.path)
    network = build(f"{MODULE}:good")
    assert [name for name, _ in network.named_children()] == ["0", "1"]
    assert network.training
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{MODULE}:god", f"has no function 'god'. Did you mean {MODULE}:good"),
        (f"{MODULE}:", "has no function ''"),
        ("not_there_at_all:good", "can not import 'not_there_at_all' from"),
        (f"{MODULE}:failing", r"failing\(instance_shape=\(5,\), num_outputs=3\) failed: ValueError\('no such luck'\)"),
        (f"{MODULE}:nothing", "expected it to return a torch.nn.Module, found NoneType"),
        (f"{MODULE}:narrow", r"expected logits of shape \(2, 3\) for two instances, found \(2, 2\)"),
        (f"{MODULE}:mistaken", r"does not take instances of shape \(5,\)"),
    ],
)
def test_a_factory_that_does_not_do_is_refused_with_what_it_did(name: str, message: str) -> None:
    with pytest.raises(NetworkInvalid, match=message):
        build(name)


def test_options_that_ones_own_network_would_not_see_are_refused() -> None:
    with pytest.raises(NetworkInvalid, match="--placement, --eps mean nothing for a network of your own"):
        specify(NetworkOptions(network="a:b", placement="first", eps=0.1), instance_shape=(5,), num_outputs=3)

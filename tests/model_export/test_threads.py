"""How many threads a network gets, whatever it is made of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from model_export.threads import threads_for

MANY = 2


class Unpredictable(nn.Module):
    """A network that fails whenever it is run."""

    def forward(self, x: Tensor) -> Tensor:
        del x
        raise AttributeError("no such luck")


@pytest.fixture(autouse=True)
def _many_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(MANY)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "network",
    [
        nn.Linear(4, 2),
        parametrizations.weight_norm(nn.Linear(4, 2)),
        parametrizations.spectral_norm(nn.Linear(4, 2)),
        nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
    ],
)
def test_a_small_network_of_any_making_gets_one_thread(network: nn.Module) -> None:
    with threads_for(network, (4,), 64):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == MANY
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_large_network_keeps_all_threads() -> None:
    with threads_for(nn.Linear(1000, 1000), (1000,), 64):  # 128 MFLOP
        assert torch.get_num_threads() == MANY


def test_a_network_that_can_not_be_counted_keeps_all_threads() -> None:
    with threads_for(Unpredictable(), (4,), 64):
        assert torch.get_num_threads() == MANY

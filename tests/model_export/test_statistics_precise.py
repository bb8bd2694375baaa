"""Claims about precise statistics: what BatchNorms see behind batch-normalised layers, pooled with weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.freeze import freeze
from model_export.statistics import estimate_statistics, precise_statistics
from tests.model_export.bn_networks import Unreached, built, chain, instances

# float64 keeps 2e-16 of each number; sums of a few hundred stay far below this.
TOLERANCE = 1e-12


def test_each_layer_sees_what_its_batch_makes_of_the_layers_before() -> None:
    """The oracle walks through the layers in float64, each batch by itself, and takes all values together."""
    network, data = built(chain).double(), instances(60, 6).double()
    order = np.random.default_rng(0).permutation(60)
    seen: list[torch.Tensor] = []
    first, linear, elu = list(network.children())[:3]
    assert isinstance(first, nn.BatchNorm1d)
    for start in range(0, 60, 20):
        values = data[order[start : start + 20]]
        normalised = (values - values.mean(0)) / (values.var(0, correction=0) + first.eps).sqrt()
        seen.append(elu(linear(normalised * first.weight + first.bias)).detach())
    expected = torch.cat(seen)
    found = precise_statistics(network, data, batch_size=20)["3"]
    np.testing.assert_allclose(found.mean, expected.mean(0).numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(found.var, expected.var(0, correction=0).numpy(), rtol=TOLERANCE)
    assert found.num_values == 60


def test_with_one_batch_of_everything_precise_is_exact() -> None:
    network, data = built(chain).double(), instances(60, 6).double()
    exact = estimate_statistics(network, data)
    for name, statistics in precise_statistics(network, data, batch_size=60).items():
        np.testing.assert_allclose(statistics.var, exact[name].var, rtol=1e-9)


def test_batches_of_two_see_something_else_than_the_deployed_network() -> None:
    network, data = built(chain).double(), instances(60, 6).double()
    exact, precise = estimate_statistics(network, data), precise_statistics(network, data, batch_size=2)
    np.testing.assert_allclose(precise["0"].var, exact["0"].var, rtol=TOLERANCE)  # nothing lies before the first
    assert np.abs(precise["3"].var / exact["3"].var - 1).max() > 0.1


def test_a_last_batch_of_one_is_left_out() -> None:
    assert precise_statistics(built(chain), instances(61, 6), batch_size=20)["0"].num_values == 60


def test_a_last_batch_of_several_counts_by_its_weight() -> None:
    assert precise_statistics(built(chain), instances(65, 6), batch_size=20)["0"].num_values == 65


def test_data_sorted_by_class_is_shuffled() -> None:
    data = torch.cat([instances(30, 6) - 10, instances(30, 6, seed=2) + 10])
    network = built(chain)
    found = precise_statistics(network, data, batch_size=10)["3"]
    exact = estimate_statistics(network, data)["3"]
    np.testing.assert_allclose(np.sqrt(found.var / exact.var), 1, atol=0.3)  # unshuffled, a third of σ is missing


def test_a_batch_of_one_has_no_variance() -> None:
    with pytest.raises(StatisticsInvalid, match=r"one of 1 has no variance.*batches of two"):
        precise_statistics(built(chain), instances(10, 6), batch_size=1)


def test_dropout_is_off_and_the_network_is_left_as_it_is() -> None:
    network, data = built(chain), instances(60, 6)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = (precise_statistics(network, data, batch_size=20) for _ in range(2))
    np.testing.assert_array_equal(first["6"].var, second["6"].var)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    assert network.training


def test_what_forward_does_not_come_to_is_not_measured() -> None:
    assert list(precise_statistics(built(Unreached), instances(20, 6), batch_size=10)) == ["bn"]


def test_a_frozen_network_has_no_use_for_batches() -> None:
    network, data = built(chain), instances(20, 6)
    frozen = freeze(network, estimate_statistics(network, data))
    with pytest.raises(NetworkInvalid, match=r"'0' is frozen.*thaw"):
        precise_statistics(frozen, data, batch_size=10)


def test_a_last_batch_of_one_of_a_stream_is_left_out_too() -> None:
    stream = list(torch.split(instances(61, 6), 20))
    assert precise_statistics(built(chain), stream, batch_size=20)["0"].num_values == 60


def test_synchronised_batchnorms_normalise_with_the_batches_of_their_own_process() -> None:
    network, data = built(chain), instances(60, 6)
    expected = precise_statistics(network, data, batch_size=20)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    for name, statistics in precise_statistics(synchronised, data, batch_size=20).items():
        np.testing.assert_array_equal(statistics.var, expected[name].var)


def test_an_error_of_the_network_itself_is_told_as_one() -> None:
    class Choosy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) != 50:
                raise ValueError("I take 50 at a time")
            return x

    with pytest.raises(NetworkInvalid, match="I take 50 at a time"):
        precise_statistics(nn.Sequential(nn.BatchNorm1d(6), Choosy()), instances(20, 6), batch_size=10)

"""Claims about freezing: a copy that holds the statistics, and an original that knows nothing of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from model_export.errors import NetworkInvalid, StatisticsInvalid
from model_export.freeze import freeze, thaw
from model_export.statistics import FrozenStatistics, moving_average_statistics, named_batchnorms

# One float32 multiplication and addition a layer.
FLOAT32_TOLERANCE = 1e-6


def statistics_for(network: nn.Module) -> dict[str, FrozenStatistics]:
    rng = np.random.default_rng(0)
    return {
        name: FrozenStatistics(
            mean=rng.normal(size=batchnorm.num_features),
            var=rng.uniform(0.5, 2, size=batchnorm.num_features),
            num_values=10,
        )
        for name, batchnorm in named_batchnorms(network).items()
    }


def batch(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_a_frozen_batchnorm_normalises_with_the_statistics_it_was_given(*, affine: bool, momentum: float) -> None:
    network = nn.Sequential(nn.BatchNorm1d(4, affine=affine, momentum=momentum))
    statistics = statistics_for(network)
    mean, var = statistics["0"].mean, statistics["0"].var
    expected = (batch(5, 4).double().numpy() - mean) / np.sqrt(var + 1e-5)
    found = freeze(network, statistics)(batch(5, 4)).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=FLOAT32_TOLERANCE)


def test_the_statistics_are_rounded_once() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4))
    statistics = statistics_for(network)
    held = named_batchnorms(freeze(network, statistics))["0"].running_var
    assert held is not None
    np.testing.assert_array_equal(held.numpy(), statistics["0"].var.astype(np.float32))


def test_the_copy_is_in_inference_mode_and_the_original_is_untouched() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frozen = freeze(network, statistics_for(network))
    frozen[0].weight.data.zero_()  # type: ignore[index]
    assert not any(module.training for module in frozen.modules())
    assert all(module.training for module in network.modules())
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def test_an_answer_depends_on_its_own_instance_alone() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    frozen = freeze(network, statistics_for(network))
    alone, together = frozen(batch(6, 4)[:1]), frozen(batch(6, 4))[:1]
    torch.testing.assert_close(alone, together, rtol=0, atol=FLOAT32_TOLERANCE)


def test_shared_weights_stay_shared() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    network[2].weight = network[0].weight
    frozen = freeze(network, statistics_for(network))
    assert isinstance(frozen, nn.Sequential)
    assert frozen[2].weight is frozen[0].weight
    assert frozen[2].weight is not network[0].weight


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("weight_norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_normalised_weight_survives(weight_norm: type[nn.Module]) -> None:
    linear: nn.Module = weight_norm(nn.Linear(4, 4))
    network = nn.Sequential(linear, nn.BatchNorm1d(4)).train()
    network(batch(5, 4))  # the hooked one keeps a tensor with a gradient history from here on
    frozen = freeze(network, statistics_for(network))
    assert isinstance(frozen, nn.Sequential)
    torch.testing.assert_close(frozen[0](batch(5, 4)), linear(batch(5, 4)))


def test_buffers_made_in_inference_mode_can_be_replaced() -> None:
    with torch.inference_mode():
        network = nn.Sequential(nn.BatchNorm1d(4))
    assert freeze(network, statistics_for(network))(batch(5, 4)).shape == (5, 4)


def test_statistics_of_another_network_are_refused_by_name() -> None:
    network, other = nn.Sequential(nn.BatchNorm1d(4)), nn.Sequential(nn.Identity(), nn.BatchNorm1d(4))
    with pytest.raises(StatisticsInvalid, match="without any: 0; statistics without a BatchNorm: 1"):
        freeze(network, statistics_for(other))


def test_statistics_of_another_width_are_refused_by_name() -> None:
    network, other = nn.Sequential(nn.BatchNorm1d(4)), nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(StatisticsInvalid, match=r"BatchNorm '0' has 4 channels, .*\(3,\)"):
        freeze(network, statistics_for(other))


def test_statistics_that_overflow_the_layers_dtype_are_refused() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4).half())
    huge = FrozenStatistics(mean=np.zeros(4), var=np.array([1.0, 1e5, 1.0, 1.0]), num_values=1)
    with pytest.raises(StatisticsInvalid, match="too large for the dtype of its buffers, in channels 1"):
        freeze(network, {"0": huge})


def test_a_network_that_can_not_be_copied_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4))
    network.handle = (value for value in [1])  # type: ignore[assignment]
    with pytest.raises(NetworkInvalid, match=r"can not be copied: .*Keep files, locks"):
        freeze(network, statistics_for(network))


def learning() -> nn.Sequential:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    return network.train()


def test_in_training_mode_a_frozen_batchnorm_still_applies_its_statistics_and_leaves_them_alone() -> None:
    network = learning()
    statistics = statistics_for(network)
    frozen = freeze(network, statistics)
    expected = frozen[1](batch(5, 4))  # type: ignore[index]
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    frozen.train()
    for _ in range(3):
        frozen(batch(5, 4) + 10)
    torch.testing.assert_close(frozen[1](batch(5, 4)), expected, rtol=0, atol=0)  # type: ignore[index]
    torch.testing.assert_close(frozen.state_dict(), before, rtol=0, atol=0)
    assert frozen[2].training  # type: ignore[index]  # only statistics are frozen, Dropout drops again


def test_one_instance_passes_a_frozen_batchnorm_in_training_mode() -> None:
    """A BatchNorm in training mode refuses a single instance: it has no variance."""
    network = learning()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(batch(1, 4))
    assert freeze(network, statistics_for(network)).train()(batch(1, 4)).shape == (1, 3)


def test_weight_and_bias_of_a_frozen_batchnorm_still_learn() -> None:
    network = learning()
    frozen = freeze(network, statistics_for(network)).train()
    torch.autograd.backward(frozen(batch(5, 4)).sum())
    assert all(parameter.grad is not None for parameter in frozen.parameters())


def test_state_dicts_fit_both_ways() -> None:
    network = learning()
    frozen = freeze(network, statistics_for(network))
    assert list(frozen.state_dict()) == list(network.state_dict())
    network.load_state_dict(frozen.state_dict())


def test_nothing_takes_a_frozen_batchnorm_for_one_that_can_be_synchronised() -> None:
    network = learning()
    convert = nn.SyncBatchNorm.convert_sync_batchnorm
    frozen = convert(freeze(network, statistics_for(network)))  # type: ignore[no-untyped-call]
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in frozen.modules())


def test_a_shared_batchnorm_is_frozen_once_and_stays_shared() -> None:
    batchnorm = nn.BatchNorm1d(4)
    network = nn.Sequential(batchnorm, nn.Linear(4, 4), batchnorm)
    frozen = freeze(network, statistics_for(network))
    assert frozen[0] is frozen[2]  # type: ignore[index]


def test_hooks_stay_on_a_frozen_batchnorm() -> None:
    network = learning()
    network[1].register_forward_hook(lambda *given: given[-1] * 0)
    frozen = freeze(network, statistics_for(network))
    assert not frozen[1](batch(5, 4)).any()  # type: ignore[index]


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.SyncBatchNorm])
def test_thawing_undoes_freezing(kind: type[nn.BatchNorm1d]) -> None:
    network = nn.Sequential(nn.Linear(4, 4), kind(4, momentum=0.3, eps=1e-3))
    statistics = statistics_for(network)
    thawed = thaw(freeze(network, statistics))
    (layer,) = (module for module in thawed.modules() if isinstance(module, kind))
    assert (type(layer), layer.momentum, layer.eps, layer.training) == (kind, 0.3, 1e-3, True)
    assert layer.running_mean is not None
    np.testing.assert_array_equal(layer.running_mean.numpy(), statistics["1"].mean.astype(np.float32))


def test_a_thawed_network_learns_statistics_again_and_the_frozen_one_does_not() -> None:
    network = learning()
    frozen = freeze(network, statistics_for(network))
    before = frozen.get_buffer("1.running_mean").clone()
    thawed = thaw(frozen)
    thawed(batch(5, 4))
    assert not torch.equal(thawed.get_buffer("1.running_mean"), before)
    torch.testing.assert_close(frozen.get_buffer("1.running_mean"), before, rtol=0, atol=0)


def test_thawing_what_was_never_frozen_is_an_error() -> None:
    with pytest.raises(NetworkInvalid, match=r"no frozen BatchNorm.*freeze"):
        thaw(learning())


class Activated(nn.BatchNorm1d):
    """A class of one's own that does more than normalise, as timm's BatchNormAct2d."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x))


def of_ones_own() -> nn.Module:
    return Activated(4)


def parametrized() -> nn.Module:
    return nn.utils.parametrize.register_parametrization(nn.BatchNorm1d(4), "weight", nn.Softplus())


@pytest.mark.parametrize("make", [of_ones_own, parametrized])
def test_a_batchnorm_of_ones_own_class_is_frozen_as_it_is_and_thawed_again(make: Callable[[], nn.Module]) -> None:
    network = nn.Sequential(nn.Linear(4, 4), make())
    kind = type(network[1])
    frozen = freeze(network, statistics_for(network))
    expected = frozen(batch(5, 4))
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    torch.testing.assert_close(frozen.train()(batch(5, 4)), expected, rtol=0, atol=0)
    torch.testing.assert_close(frozen.state_dict(), before, rtol=0, atol=0)
    thawed = thaw(frozen)
    assert isinstance(thawed, nn.Sequential)
    assert type(thawed[1]) is kind
    assert thawed[1].training


def test_the_averages_of_a_frozen_network_are_no_moving_averages() -> None:
    network = learning()
    with pytest.raises(StatisticsInvalid, match=r"'1' is frozen.*before freeze"):
        moving_average_statistics(freeze(network, statistics_for(network)))

"""The networks of reference: what stands where, and that raw values suit them all."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from model_export.errors import NetworkInvalid
from model_export.networks import (
    Activation,
    NetworkOptions,
    Placement,
    Standardise,
    build_network,
    fit_standardise,
    specify,
)

IMAGE = (1, 12, 10)
PLACEMENTS = get_args(Placement)


def build(*, instance_shape: tuple[int, ...] = IMAGE, **options: Any) -> nn.Module:
    return build_network(specify(NetworkOptions(**options), instance_shape=instance_shape, num_outputs=4))


def layers(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_children()]


def test_the_default_is_the_books_network() -> None:
    assert layers(build()) == [
        "flatten", "batchnorm0", "dense1", "elu1", "batchnorm1", "dense2", "elu2", "batchnorm2", "dense3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("placement", "expected"),
    [
        ("first+after", ["batchnorm0", "dense1", "tanh1", "batchnorm1", "dense2"]),
        ("first+before", ["batchnorm0", "dense1", "batchnorm1", "tanh1", "dense2"]),
        ("first", ["batchnorm0", "dense1", "tanh1", "dense2"]),
        ("after", ["standardise", "dense1", "tanh1", "batchnorm1", "dense2"]),
        ("before", ["standardise", "dense1", "batchnorm1", "tanh1", "dense2"]),
        ("none", ["standardise", "dense1", "tanh1", "dense2"]),
    ],
)
def test_batchnorm_stands_where_the_placement_says(placement: Placement, expected: list[str]) -> None:
    assert layers(build(instance_shape=(5,), placement=placement, activation="tanh", hidden=(8,))) == expected


def test_the_default_convnet_begins_with_batchnorm_and_has_one_before_each_activation() -> None:
    network = build(network="convnet", hidden=(4, 8))
    assert layers(network) == [
        "batchnorm0", "conv1", "batchnorm1", "relu1", "pool1", "conv2", "batchnorm2", "relu2", "flatten", "dense1",
    ]  # fmt: skip


@pytest.mark.parametrize("network", ["mlp", "convnet"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_layer_has_a_bias_unless_a_batchnorm_follows_it(network: str, placement: Placement) -> None:
    named = dict(build(network=network, placement=placement, hidden=(8,)).named_children())
    hidden_layer = named["dense1" if network == "mlp" else "conv1"]
    assert (hidden_layer.bias is None) == placement.endswith("before")


@pytest.mark.parametrize("network", ["mlp", "convnet"])
@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation_gives_logits_of_the_right_shape(network: str, activation: Activation) -> None:
    logits = build(network=network, activation=activation, hidden=(6,))(torch.rand(3, *IMAGE))
    assert logits.shape == (3, 4)


def test_momentum_and_eps_reach_every_batchnorm() -> None:
    network = build(momentum=0.3, eps=1e-3)
    found = [(m.momentum, m.eps) for m in network.modules() if isinstance(m, nn.BatchNorm1d)]
    assert found == [(0.3, 1e-3)] * 3


def test_dropout_stands_behind_every_batchnorm() -> None:
    assert layers(build(dropout=0.5))[-3:] == ["batchnorm2", "dropout", "dense3"]


def test_building_moves_no_running_average_and_leaves_the_network_in_training_mode() -> None:
    network = build()
    assert network.training
    assert int(network.get_buffer("batchnorm0.num_batches_tracked")) == 0


def test_small_images_get_as_many_convolutions_as_fit() -> None:
    options = specify(NetworkOptions(network="convnet"), instance_shape=(1, 8, 8), num_outputs=10).options
    assert options.hidden == (16, 32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "resnet"}, "no network 'resnet': expected mlp, convnet, or your own"),
        ({"placement": "behind"}, "--placement is 'behind': expected one of first[+]after"),
        ({"activation": "step"}, "--activation is 'step': expected one of elu"),
        ({"dropout": 1.0}, "--dropout is 1.0: expected a share"),
        ({"momentum": float("nan")}, "--momentum is nan: expected"),
        ({"eps": 0.0}, "--eps is 0.0: expected"),
        ({"eps": 1e-300}, "--eps is 1e-300: expected a number of 1e-12 at least"),
        ({"hidden": (99_999_999_999,)}, "mlp can not be built.* fewer or narrower layers"),
        ({"hidden": (10**30,)}, "mlp can not be built.* fewer or narrower layers"),
        ({"network": "convnet", "hidden": (99_999_999_999,)}, "convnet can not be built"),
        ({"hidden": (3, 0)}, "--hidden is .3, 0.: expected widths"),
        ({"network": "convnet", "hidden": (4, 4, 4, 4)}, "has room for 2 .* asked for 4"),
        ({"network": "convnet", "instance_shape": (12,)}, "convnet expects images of shape"),
        ({"network": "convnet", "instance_shape": (1, 2, 9)}, "has room for 0"),
    ],
)
def test_what_can_not_be_built_is_refused_with_what_would_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(NetworkInvalid, match=message):
        build(**options)


ROUNDING = 1e-5  # float32: values of size 1000 with a spread of 1 lose four of seven digits


@pytest.mark.parametrize("network", ["mlp", "convnet"])
def test_standardise_gives_training_instances_mean_zero_and_variance_one(network: str) -> None:
    values = np.random.default_rng(0).normal(3, 2, (500, *IMAGE)).astype(np.float32)
    built = build(network=network, placement="none", hidden=(4,))
    fit_standardise(built, values)
    layer = built.get_submodule("standardise")
    first = torch.from_numpy(values if network == "convnet" else values.reshape(500, -1))
    out = layer(first).double()
    axes = (0, 2, 3) if network == "convnet" else (0,)
    assert out.mean(dim=axes).abs().max() < ROUNDING
    assert (out.var(dim=axes, unbiased=False) - 1).abs().max() < ROUNDING


def test_a_feature_that_never_changes_is_not_divided_by_zero() -> None:
    network = nn.Sequential(Standardise(2))
    fit_standardise(network, np.array([[5, 1], [5, 3]], dtype=np.float32))
    assert network(torch.tensor([[5.0, 1.0]])).tolist() == [[0, -1]]


def test_standardise_that_does_not_fit_the_instances_is_refused() -> None:
    with pytest.raises(NetworkInvalid, match=r"0: Standardise\(7\) does not fit instances of shape \(1, 12, 10\)"):
        fit_standardise(nn.Sequential(Standardise(7)), np.zeros((2, *IMAGE), dtype=np.float32))

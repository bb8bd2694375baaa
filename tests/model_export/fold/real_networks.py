"""Architectures that others published and PyPI packages define, thin, with BatchNorms as training leaves them.

No weights are loaded. The packages' own initialisation leaves γ = 1, β = 0, μ = 0, σ² = 1, where most wrong folds are
right by accident; `live_in` gives every BatchNorm the statistics of real activations, spread over decades.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

SEED = 0
SPREAD = 0.75  # weights of an output channel are scaled by 10 ** ±SPREAD: variances over 2 * 2 * SPREAD decades


@dataclass(frozen=True)
class RealNetwork:
    """How to build an architecture, and how many of its BatchNorms an exact fold can do away with, by reasoning.

    `kept` are those that no weights can take over, with `why`; every other one must go.
    """

    build: Callable[[], nn.Module]
    instance_shape: tuple[int, ...]
    batchnorms: int
    kept: int
    why: str


def build(architecture: RealNetwork) -> nn.Module:
    """The network in inference mode, the same one at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = architecture.build().eval()
        live_in(network, torch.randn(8, *architecture.instance_shape))
    return network


@torch.no_grad()
def live_in(network: nn.Module, batch: torch.Tensor) -> None:
    """Give `network`, in place, the BatchNorms of a trained one: both signs of γ, μ ≠ 0, σ² over decades.

    In one forward each BatchNorm gets the statistics of `batch`, give or take, before it is applied: activations stay
    of the order of one at any depth.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            nn.init.kaiming_uniform_(module.weight)  # transformers starts so small that ε outweighs σ²
            exponents = SPREAD * (2 * torch.rand(len(module.weight)) - 1)
            module.weight.mul_((10.0**exponents).view(-1, *[1] * (module.weight.ndim - 1)))
    hooks = [module.register_forward_pre_hook(_live_in) for module in network.modules() if _is_batchnorm(module)]
    try:
        network(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _live_in(batchnorm: Any, inputs: tuple[torch.Tensor, ...]) -> None:
    (x,) = inputs
    variance, mean = torch.var_mean(x.transpose(0, 1).flatten(1), dim=1, correction=0)
    variance = variance.clamp(min=1e-3 * float(variance.mean()) + 1e-6)  # a ReLU may have silenced a channel
    batchnorm.running_mean.copy_(mean + 0.3 * variance.sqrt() * torch.randn_like(mean))
    batchnorm.running_var.copy_(variance * (0.5 + torch.rand_like(variance)))
    batchnorm.weight.copy_((0.5 + torch.rand_like(mean)) * torch.where(torch.rand_like(mean) < 0.5, -1.0, 1.0))
    batchnorm.bias.copy_(0.5 * torch.randn_like(mean))


def _is_batchnorm(module: nn.Module) -> bool:
    return isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))


def resnet50() -> nn.Module:
    """ResNet-50 itself, 25.6 M parameters, for inputs of shape (3, 224, 224)."""
    network: nn.Module = _package("pytorchcv.models.resnet").resnet50()
    return network


def _resnet() -> nn.Module:
    return _pooled(_package("pytorchcv.models.resnet").ResNet([[32, 32], [64]], 16, bottleneck=True, conv1_stride=True))


def _preresnet() -> nn.Module:
    package = _package("pytorchcv.models.preresnet")
    return _pooled(package.PreResNet([[16, 16], [32]], 16, bottleneck=False, conv1_stride=True))


def _pyramidnet() -> nn.Module:
    return _pooled(_package("pytorchcv.models.pyramidnet").PyramidNet([[24, 32], [40]], 16, bottleneck=True))


def _densenet() -> nn.Module:
    return _pooled(_package("pytorchcv.models.densenet").DenseNet([[12, 16], [12]], 8))


def _efficientnet() -> nn.Module:
    return _pooled(
        _package("pytorchcv.models.efficientnet").EfficientNet(
            channels=[[8], [12, 12]],
            init_block_channels=16,
            final_block_channels=32,
            kernel_sizes=[[3], [5, 3]],
            strides_per_stage=[1, 2],
            expansion_factors=[[1], [4, 4]],
            tf_mode=True,
            bn_eps=1e-3,
        )
    )


def _mixnet() -> nn.Module:
    return _pooled(
        _package("pytorchcv.models.mixnet").MixNet(
            channels=[[8, 8], [16]],
            init_block_channels=8,
            final_block_channels=32,
            exp_kernel_counts=[[2, 2], [1]],
            conv1_kernel_counts=[[1, 3], [2]],
            conv2_kernel_counts=[[2, 2], [1]],
            exp_factors=[[6, 3], [3]],
            se_factors=[[0, 0], [2]],
        )
    )


def _ibnresnet() -> nn.Module:
    return _pooled(_package("pytorchcv.models.ibnresnet").IBNResNet([[32, 32], [64]], 16))


def _erfnet() -> nn.Module:
    network: nn.Module = _package("pytorchcv.models.erfnet").ERFNet(
        channels=[8, 16, 8],
        dilations=[[1], [1, 2], [1, 1]],
        dropout_rates=[[0.0], [0.0, 0.3], [0.0, 0.0]],
        downs=[1, 1, 0],
        in_size=(32, 32),
    )
    return network


def _mobileone() -> nn.Module:
    network: nn.Module = _package("mobileone_pytorch._mobileone_network").MobileOneNetwork(
        ks=[2, 1], out_channels=[8, 8], num_blocks=[1, 1], strides=[2, 1], num_classes=10
    )
    return network


def _levit() -> nn.Module:
    levit = _package("transformers")
    config = levit.LevitConfig(
        image_size=64,
        hidden_sizes=(16, 32, 48),
        num_attention_heads=(2, 4, 6),
        depths=(1, 1, 1),
        key_dim=(8, 8, 8),
        num_labels=10,
    )
    return _Answer(levit.LevitForImageClassificationWithTeacher(config), "logits")


def _swiftformer() -> nn.Module:
    swiftformer = _package("transformers")
    config = swiftformer.SwiftFormerConfig(
        image_size=32,
        depths=(2, 2),
        embed_dims=(16, 24),
        mlp_ratio=2,
        downsamples=(True, True),
        layer_scale_init_value=0.5,
        num_labels=10,
    )
    return _Answer(swiftformer.SwiftFormerForImageClassification(config), "logits")


def _pp_lcnet() -> nn.Module:
    transformers = _package("transformers")
    blocks = [[[3, 16, 16, 1, False]], [[3, 16, 24, 2, False]], [[3, 24, 24, 1, True]], [[5, 24, 32, 2, False]]]
    config = transformers.PPLCNetV3Config(block_configs=[*blocks, [[5, 32, 32, 1, True]]], conv_symmetric_num=2)
    backbone = _Answer(transformers.PPLCNetV3Backbone(config), "feature_maps")
    return nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


class _Answer(nn.Module):
    """The one tensor of a transformers network's answer."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = getattr(self.network(x), self.name)
        last: torch.Tensor = answer if isinstance(answer, torch.Tensor) else answer[-1]
        return last


class _Residual(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for module in self:
            y = module(y)
        return x + y


def _convmixer(width: int = 16, depth: int = 2) -> nn.Module:
    """ConvMixer, after the listing in its paper's appendix (Trockman, Kolter: Patches Are All You Need?)."""

    def after(convolution: nn.Module) -> list[nn.Module]:
        return [convolution, nn.GELU(), nn.BatchNorm2d(width)]

    blocks: list[nn.Module] = []
    for _ in range(depth):
        blocks.append(_Residual(*after(nn.Conv2d(width, width, 5, groups=width, padding="same"))))
        blocks.extend(after(nn.Conv2d(width, width, 1)))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]
    return nn.Sequential(*after(nn.Conv2d(3, width, 4, stride=4)), *blocks, *head)


def _package(name: str) -> Any:
    """Imported when its networks are built: transformers takes seconds. None of these packages has types."""
    return importlib.import_module(name)


def _pooled(network: Any) -> nn.Module:
    """Pool to 1×1 whatever the size, where pytorchcv pools by the 7×7 that 224×224 inputs end at."""
    network.features.final_pool = nn.AdaptiveAvgPool2d(1)
    pooled: nn.Module = network
    return pooled


REAL_NETWORKS = {
    "resnet": RealNetwork(_resnet, (3, 32, 32), 12, 0, "each BatchNorm follows its own conv"),
    "preresnet": RealNetwork(
        _preresnet,
        (3, 32, 32),
        8,
        3,
        "a unit's first one reads the residual sum, which others read too, and a ReLU follows; "
        "the last one reads the sum of two convs and nobody else does: it goes into both",
    ),
    "pyramidnet": RealNetwork(
        _pyramidnet,
        (3, 32, 32),
        14,
        1,
        "before the head: it reads the residual sum, whose one part others read too, and a ReLU follows; "
        "a unit's first one, which no ReLU follows, goes into the unpadded 1×1 conv behind it",
    ),
    "densenet": RealNetwork(
        _densenet,
        (3, 32, 32),
        9,
        5,
        "before a unit, a transition and the head: it reads a concatenation whose parts others read too, and a ReLU "
        "follows (3 units, 1 transition, 1 head)",
    ),
    "efficientnet": RealNetwork(_efficientnet, (3, 32, 32), 10, 0, "each BatchNorm follows its own conv"),
    "mixnet": RealNetwork(
        _mixnet,
        (3, 32, 32),
        13,
        0,
        "each BatchNorm follows its own conv, or a concatenation of convs: each takes its share",
    ),
    "ibnresnet": RealNetwork(
        _ibnresnet,
        (3, 32, 32),
        12,
        0,
        "each BatchNorm follows its own conv, or half of its channels: three go into half a conv",
    ),
    "erfnet": RealNetwork(
        _erfnet,
        (3, 32, 32),
        7,
        2,
        "a BatchNorm over conv(x) beside max_pool(x): x itself is read by both, a ReLU follows",
    ),
    "mobileone": RealNetwork(
        _mobileone,
        (3, 32, 32),
        10,
        0,
        "each follows its own conv, or (two of them) can be one more 1×1 in a parallel conv",
    ),
    "levit": RealNetwork(
        _levit,
        (3, 64, 64),
        28,
        0,
        "each follows its own conv or its own Linear, through reshapes of tokens, but for the two before the two heads",
    ),
    "swiftformer": RealNetwork(
        _swiftformer,
        (3, 32, 32),
        10,
        0,
        "each follows its own conv, precedes an unpadded 1×1 conv, or (the last) a pooling and two Linear heads",
    ),
    "pp_lcnet": RealNetwork(
        _pp_lcnet,
        (3, 32, 32),
        32,
        0,
        "each follows its own conv, or (identity branches) can be 1 more in a parallel conv",
    ),
    "convmixer": RealNetwork(
        _convmixer,
        (3, 32, 32),
        5,
        4,
        "an activation comes before each, and a padded conv and a sum read it, or it is one part of a sum; "
        "only the last one goes, through the pooling into the head",
    ),
}

"""The networks of the GPU benchmark, in PyTorch, with their BatchNorms and without: one set of weights for every way.

Random weights and statistics of a trained network's spread; what a network has learned does not change what it costs.
Without BatchNorms means folded: each is one scale and one shift per channel, put into the layer before it, or, where it
stands before a Linear, into that. ONNX Runtime gets the same networks, exported and folded by `model_export`.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

SEED = 0
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # blocks, width, stride of the first (He et al. 2015)
EXPANSION = 4


@dataclass(frozen=True)
class Subject:
    """A network that is measured, in inference mode, as trained and folded. An instance is float32 `instance_shape`."""

    name: str
    instance_shape: tuple[int, ...]
    network: nn.Module
    folded: nn.Module


class Answers(nn.Module):
    """What a bundle's model answers: scores, the softmax, and logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, instances: Tensor) -> tuple[Tensor, Tensor]:
        """Give scores and logits, [batch, labels] each, of instances [batch, …]."""
        logits = self.network(instances)
        return logits.softmax(dim=1), logits


class Bottleneck(nn.Module):
    """ResNet's block of three Convs, beside a way around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * EXPANSION
        self.body = nn.Sequential(
            *(*_conv(inputs, width, 1), nn.ReLU()),
            *(*_conv(width, width, 3, stride), nn.ReLU()),
            *_conv(width, outputs, 1),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Sequential() if same else nn.Sequential(*_conv(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Give [batch, 4·width, …] of [batch, inputs, …]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def build_subject(name: str) -> Subject:
    """Build one of the networks, by its name in `gpu_plan.MODELS`."""
    shape, build = _BUILDERS[name]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        network = build()
        _spread_statistics(network)
    network.eval()
    return Subject(name, shape, network, fold(network))


def fold(network: nn.Module) -> nn.Module:
    """Give a copy whose BatchNorms are folded into their neighbours, in each Sequential; it must be in inference mode.

    Raises:
        ValueError: a BatchNorm has no neighbour that takes it.
    """
    folded = copy.deepcopy(network)
    for module in list(folded.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Sequential):
                setattr(module, name, _fold_sequential(child))
    if isinstance(folded, nn.Sequential):
        folded = _fold_sequential(folded)
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in folded.modules()):  # noqa: SLF001
        raise ValueError("a BatchNorm is left that no layer beside it takes")
    return folded


def write_onnx(subject: Subject, folder: Path) -> dict[bool, Path]:
    """Export a network and fold it: the files by whether they are folded. Needs `model_export`'s packages."""
    from model_export.export import export_raw
    from model_export.fold import fold as fold_graph
    from model_export.fold.files import save_model

    raw = export_raw(subject.network, instance_shape=subject.instance_shape)
    paths = {False: folder / f"{subject.name}-raw.onnx", True: folder / f"{subject.name}-folded.onnx"}
    save_model(raw, paths[False])
    save_model(fold_graph(raw).model, paths[True])
    return paths


def _fold_sequential(layers: nn.Sequential) -> nn.Sequential:
    folded: list[nn.Module] = []
    waiting: nn.Module | None = None  # a BatchNorm with no layer before it, for the next Linear
    for layer in layers:
        before = folded[-1] if folded else None
        if isinstance(layer, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
            folded[-1] = fusion.fuse_conv_bn_eval(before, layer)
        elif isinstance(layer, nn.BatchNorm1d) and isinstance(before, nn.Linear):
            folded[-1] = fusion.fuse_linear_bn_eval(before, layer)
        elif isinstance(layer, nn.BatchNorm1d):
            waiting = layer
        elif waiting is not None and isinstance(layer, nn.Linear):
            folded.append(_fold_into_next(waiting, layer))
            waiting = None
        else:
            folded.append(layer)
    return nn.Sequential(*folded) if waiting is None else layers


def _fold_into_next(batchnorm: nn.Module, linear: nn.Linear) -> nn.Linear:
    """W(s⊙x + t) + b = (W·diag s)x + (Wt + b), computed in float64 and rounded once."""
    folded = copy.deepcopy(linear)
    values = {name: tensor.double() for name, tensor in batchnorm.state_dict().items()}
    scale = values["weight"] / torch.sqrt(values["running_var"] + batchnorm.eps)
    shift = values["bias"] - values["running_mean"] * scale
    weight = linear.weight.double()
    with torch.no_grad():
        folded.weight.copy_(weight * scale)
        folded.bias.copy_(weight @ shift + linear.bias.double())
    return folded


def _spread_statistics(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
            nn.init.normal_(layer.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # type: ignore[arg-type]


def _book() -> nn.Module:
    widths = (784, 300, 100)
    hidden = [
        layer
        for inputs, outputs in itertools.pairwise(widths)
        for layer in (nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs), nn.ELU())
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.BatchNorm1d(widths[-1]), nn.Linear(widths[-1], 10))


def _convnet() -> nn.Module:
    first, second = ((*_conv(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)), (*_conv(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)))
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(32 * 7 * 7, 10))


def _resnet50() -> nn.Module:
    blocks, channels = [], 64
    for count, width, stride in STAGES:
        for number in range(count):
            blocks.append(Bottleneck(channels, width, stride if number == 0 else 1))
            channels = width * EXPANSION
    stem = (*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs)


_BUILDERS = {
    "book784": ((1, 28, 28), _book),
    "convnet": ((1, 28, 28), _convnet),
    "resnet50": ((3, 224, 224), _resnet50),
}

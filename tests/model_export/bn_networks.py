"""Small networks with BatchNorms in unusual places, and the oracle that walks through one in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


def instances(*shape: int, seed: int = 1) -> Tensor:
    """Far from standard: mean 2, standard deviation 3."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3 + 2


class Residual(nn.Module):
    """conv, BN, ReLU, conv, BN, plus the input; written over in place wherever it can be."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        out: Tensor = self.relu(y)
        return out


class Branches(nn.Module):
    """Two branches of a BN each, joined, and a BN behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh()) for _ in range(2))
        self.joined = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.joined(torch.cat([self.left(x), self.right(x)], dim=1))
        return out


class Siamese(nn.Module):
    """One BN for two inputs that do not depend on it: both uses count, and it is measured in one pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.bn = nn.Linear(6, 4), nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.first(x)) * self.bn(self.second(x))
        return out


class Recurrent(nn.Module):
    """One layer, its BN included, applied `times` times: what the BN is fed depends on its own statistics."""

    def __init__(self, times: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.times = times
        self.linear, self.bn, self.head = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)
        self.linear.weight.data *= scale

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.times):
            x = torch.tanh(self.bn(self.linear(x)))
        out: Tensor = self.head(x)
        return out


class Dynamic(nn.Module):
    """Looks at values, so that it can not be traced: it is to be run as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.linear, self.second = nn.BatchNorm1d(6), nn.Linear(6, 5), nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.first(x))
        return torch.as_tensor(self.second(y if bool(torch.isfinite(y).all()) else relu(y)))


class Shortcut(nn.Module):
    """The block behind the shortcut begins in place, so what is added is what that left."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.bn = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.BatchNorm1d(6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        out: Tensor = self.bn(y + self.block(y))
        return out


class Clipping(nn.Module):
    """Writes over the batch itself, which is read again: a second time that changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.first, self.second = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(x, inplace=True)
        out: Tensor = self.second(self.first(self.linear(y)) + x)
        return out


class Shifting(Clipping):
    """Writes over the batch: each further time would change it again."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.sub_(0.5)
        out: Tensor = self.second(self.first(self.linear(y)) + x)
        return out


class Crossing(nn.Module):
    """One branch writes over what the other one reads, though neither lies in front of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.first, self.left, self.right = nn.BatchNorm1d(6), nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        left = self.left(relu(y, inplace=True))
        right = self.right(self.other(self.first(x)) + y)
        out: Tensor = left + right
        return out


class Workspace(nn.Module):
    """Answers with a tensor of its own, which the next batch overwrites."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.space: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        space = self.space.setdefault(len(x), torch.empty(len(x), 6, dtype=x.dtype))
        return torch.mul(self.linear(x).detach(), 2.0, out=space)


def behind_a_workspace() -> nn.Module:
    return nn.Sequential(Workspace(), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.BatchNorm1d(6))


class WritesOverItsInput(nn.Module):
    """A layer of one's own that changes what it is given: only the rehearsal can see that."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class Treacherous(nn.Module):
    """The value that the second BN reads is written over while the first one is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.over = nn.Linear(6, 6), WritesOverItsInput()
        self.first, self.second = nn.BatchNorm1d(6), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        z = self.first(y)
        w = self.second(y + z)
        out: Tensor = self.over(y) + w
        return out


class Unreached(nn.Module):
    """Has a BatchNorm that forward never comes to, and one that it comes to in training only."""

    def __init__(self) -> None:
        super().__init__()
        self.bn, self.forgotten, self.auxiliary = nn.BatchNorm1d(6), nn.BatchNorm1d(3), nn.BatchNorm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(x)
        return y + 0 * self.auxiliary(y) if self.training else y


def chain() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(6),
        nn.Linear(6, 8),
        nn.ELU(),
        nn.BatchNorm1d(8),
        nn.Dropout(),
        nn.Linear(8, 5),
        nn.BatchNorm1d(5),
    )


def residual_convnet(blocks: int = 2) -> nn.Module:
    stem = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    return nn.Sequential(*stem, *(Residual(4) for _ in range(blocks)), *head)


def deep(layers: int = 20, width: int = 100) -> nn.Module:
    """For images of 64 pixels: the network of the study, twenty layers of a hundred units."""
    widths = [64, *([width] * layers)]
    hidden = [
        part
        for before, after in pairwise(widths)
        for part in (nn.Linear(before, after), nn.BatchNorm1d(after), nn.Tanh())
    ]
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), *hidden, nn.Linear(width, 10))


ONE_AXIS: dict[str, Callable[[], nn.Module]] = {
    "chain": chain,
    "branches": Branches,
    "siamese": Siamese,
    "recurrent": Recurrent,
    "dynamic": Dynamic,
    "treacherous": Treacherous,
    "unreached": Unreached,
    "shortcut": Shortcut,
    "clipping": Clipping,
    "shifting": Shifting,
    "crossing": Crossing,
    "workspace": behind_a_workspace,
}


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()

"""A network of one's own: `--network package.module:factory`, found from the current folder or what is installed."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from torch import nn

from model_export.errors import NetworkInvalid
from model_export.networks.options import NetworkSpec


def build_ones_own(spec: NetworkSpec) -> nn.Module:
    """What the factory returns for `instance_shape` and `num_outputs`, in training mode.

    Raises:
        NetworkInvalid: the factory can not be found or fails, or returns something else than a module.
    """
    name = spec.options.network
    with _current_folder_importable():
        factory = _find_factory(name)
        try:
            network = factory(spec.instance_shape, spec.num_outputs)
        except Exception as err:
            raise NetworkInvalid(
                f"{name}(instance_shape={spec.instance_shape}, num_outputs={spec.num_outputs}) failed: {err!r}"
            ) from err
    if not isinstance(network, nn.Module):
        raise NetworkInvalid(f"{name}: expected it to return a torch.nn.Module, found {type(network).__name__}")
    return network.train()


def _find_factory(name: str) -> Callable[[tuple[int, ...], int], object]:
    module_name, _, factory_name = name.partition(":")
    module = _import(module_name, name)
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        public = [word for word, value in vars(module).items() if callable(value) and not word.startswith("_")]
        close = difflib.get_close_matches(factory_name, public, n=1)
        guess = f" Did you mean {module_name}:{close[0]}?" if close else ""
        raise NetworkInvalid(f"{module_name} has no function {factory_name!r}.{guess} It has: {', '.join(public)}")
    return factory  # type: ignore[no-any-return]  # what it takes and returns is seen when it is called


def _import(module_name: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except Exception as err:
        raise NetworkInvalid(
            f"--network {name}: can not import {module_name!r} from {Path.cwd()} or from what is installed: {err!r}"
        ) from err


@contextlib.contextmanager
def _current_folder_importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before

"""A network in eval or train mode for the length of a block, and put back afterwards as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.errors import MeasurementError


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """The module in train or eval mode for the block; afterwards every submodule has its own mode again."""
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[Tensor]:
    """`measuring` without gradients; yields a parameter, whose dtype and device the inputs need."""
    with measuring(module), torch.no_grad():
        yield next(module.parameters(), torch.empty(0))


@contextmanager
def measuring(module: nn.Module) -> Iterator[None]:
    """The module in eval mode for the block; modes, attributes and buffers are restored, also after an error.

    Raises:
        MeasurementError: at the end of the block, if something was written into a parameter.
    """
    parts = [_Kept(part) for part in module.modules()]
    buffers = [(buffer, buffer.clone(), _version(buffer)) for buffer in module.buffers()]
    versions = {name: (parameter, _version(parameter)) for name, parameter in module.named_parameters()}
    with suppress(NotImplementedError):  # an exported program has one mode
        module.eval()
    try:
        yield
    finally:
        for part in parts:
            part.restore()
        with torch.no_grad():
            for buffer, before, version in buffers:
                if _version(buffer) != version:
                    buffer.copy_(before)
    written = [name for name, (parameter, version) in versions.items() if _version(parameter) != version]
    if written:
        raise MeasurementError(
            f"network: expected a forward that does not change parameters; got a change of {', '.join(written)}. "
            "Do that in train mode only (if self.training: ...)."
        )


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class _Kept:
    """The attributes of one module, and the items of those that are lists or dicts (hooks, parameters, buffers)."""

    def __init__(self, part: nn.Module) -> None:
        self._part = part
        self._attributes = dict(vars(part))
        self._dicts = [(v, list(v.items())) for v in self._attributes.values() if isinstance(v, dict)]
        self._lists = [(v, list(v)) for v in self._attributes.values() if isinstance(v, list)]

    def restore(self) -> None:
        now = vars(self._part)
        for name in now.keys() - self._attributes.keys():
            del now[name]
        now.update(self._attributes)
        for container, before in self._lists:
            container[:] = before
        for mapping, pairs in self._dicts:
            if not _same_items(mapping, pairs):
                mapping.clear()
                mapping.update(pairs)


def _same_items(mapping: dict[Any, Any], pairs: list[tuple[Any, Any]]) -> bool:
    """Whether a dict holds these very objects in this order; `==` would fail for values such as tensors."""
    return len(mapping) == len(pairs) and all(
        a is b and x is y for (a, x), (b, y) in zip(mapping.items(), pairs, strict=True)
    )

"""Cases: a network and its inputs, drawn from a seed, and the names of its parameters that no streaming rule serves."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Where every case runs: NTKDIAG_TEST_DEVICE=cuda python -m pytest tests/kernel tries the engines on a card.
DEVICE = torch.device(os.environ.get("NTKDIAG_TEST_DEVICE", "cpu"))

Inputs = tuple[Tensor, ...]
Build = Callable[[int], tuple[nn.Module, Inputs]]


class Net(nn.Module):
    """Parameters and layers by name, and a forward written beside them: forward(net, *inputs)."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._forward(self, *inputs)


@dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        name: Of the function that builds it.
        build: Samples → (module, inputs); draws from torch's global generator, which the call seeds and restores.
        exact: Patterns of the parameters that are left to the exact engine.
        unused: Patterns of the parameters that the output does not depend on.
    """

    name: str
    build: Build
    exact: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __call__(
        self, seed: int, samples: int = 3, dtype: torch.dtype = torch.float64
    ) -> tuple[nn.Module, Inputs]:
        """The network in eval mode and its inputs, every parameter moved off its initial value."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module, inputs = self.build(samples)
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
        module = module.to(DEVICE, dtype).eval()
        for part in module.modules():
            if isinstance(part, nn.RNNBase):  # cuDNN has their backward in train mode alone
                part.train(DEVICE.type == "cuda")
        inputs = tuple(t.to(DEVICE, dtype if t.is_floating_point() else t.dtype) for t in inputs)
        return module, inputs


CASES: dict[str, Case] = {}


def case(exact: tuple[str, ...] = (), unused: tuple[str, ...] = ()) -> Callable[[Build], Build]:
    """Put a network into the table."""

    def register(build: Build) -> Build:
        name = build.__name__
        if name in CASES:
            raise ValueError(f"two cases are called {name}")
        CASES[name] = Case(name, build, exact, unused)
        return build

    return register


def normal(*shape: int) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape)

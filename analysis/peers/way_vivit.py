"""vivit on BackPACK: the Gram matrix of its GGN factor, which for squared loss on one scalar output is (2/N)·NTK."""

from __future__ import annotations

from collections.abc import Callable

import torch
from backpack import backpack, extend
from torch import Tensor, nn
from vivit.extensions.secondorder.vivit import ViViTGGNExact

from analysis.peers.cases import load_case
from analysis.ways import Case

__all__ = ["load_case", "prepare"]


class Bound(nn.Module):
    """A network with its other inputs fixed, because BackPACK's converter follows one tensor only."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.module, self.rest = case.module, case.inputs[1:]

    def forward(self, x: Tensor) -> Tensor:
        """The output for x, with the other inputs fixed."""
        return self.module(x, *self.rest)


def prepare(case: Case) -> tuple[Callable[[], Tensor], int]:
    """The kernel, and how many parameters it covers."""
    probe = nn.Linear(case.probes[0].numel(), 1, bias=False)
    with torch.no_grad():
        probe.weight.copy_(case.probes[0].reshape(1, -1))
    is_chain = isinstance(case.module, nn.Sequential)
    parts: list[nn.Module] = list(case.module.children()) if is_chain else [Bound(case)]
    model = extend(nn.Sequential(*parts, nn.Flatten(), probe), use_converter=not is_chain)
    loss = extend(nn.MSELoss())
    measured = [parameter for parameter in model.parameters() if parameter is not probe.weight]
    covered = sum(parameter.numel() for parameter in measured)

    def kernel() -> Tensor:
        extension, grams = ViViTGGNExact(), []

        def collect(module: nn.Module) -> None:
            for parameter in module.parameters(recurse=False):
                factors = getattr(parameter, extension.savefield)
                if parameter is not probe.weight:
                    grams.append(factors["gram_mat"]().reshape(case.samples, case.samples).detach())
                delattr(parameter, extension.savefield)

        output = model(case.inputs[0])
        with backpack(extension, extension_hook=collect):
            loss(output, torch.zeros_like(output)).backward()
        return torch.stack(grams).sum(0) * case.samples / 2

    return kernel, covered

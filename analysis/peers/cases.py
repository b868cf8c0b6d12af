"""The four networks of the study, and the files from which every peer reads one of them.

A case file (.npz) holds weights, inputs, the ±1 probe, the network's output, and the float64 truth.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analysis.peers.unet import UNet
from analysis.ways import Case, dit_case, float64_truth
from ntkdiag.kernel.probes import sign_probes

# size → network → arguments
SIZES: dict[str, dict[str, dict[str, Any]]] = json.loads(Path(__file__).with_name("config.json").read_text())
NETWORKS = tuple(SIZES["full"])


def build(network: str, size: str) -> Case:
    """The network with its inputs and one probe, the same at every call."""
    options = dict(SIZES[size][network])
    if network.startswith("dit"):
        return dit_case(**options)
    samples = options.pop("samples")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = (
            _mlp(**options) if network == "mlp" else UNet(width=options["width"], groups=options["groups"])
        )
    shape = torch.Size((options["size"],) if network == "mlp" else (3, options["side"], options["side"]))
    x = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(1))
    inputs: tuple[Tensor, ...] = (x,) if network == "mlp" else (x, torch.linspace(-6, 6, samples))
    return Case(module, inputs, sign_probes(shape, 1, 2, x.dtype))


def _mlp(size: int, width: int) -> nn.Sequential:
    """Four linear layers with ReLU as an nn.Sequential, which every tool supports."""
    layers = [nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, size))


def write_case(network: str, size: str, path: Path) -> None:
    """Write a case file: weights and inputs in float32, the truth in float64 from the same numbers."""
    case = build(network, size)
    arrays: dict[str, Any] = {
        f"weight/{name}": p.detach().numpy().copy() for name, p in case.module.named_parameters()
    }
    arrays |= {f"buffer/{name}": b.numpy().copy() for name, b in case.module.named_buffers()}
    arrays |= {f"input/{index}": tensor.numpy() for index, tensor in enumerate(case.inputs)}
    with torch.no_grad():
        arrays["output"] = case.module(*case.inputs).numpy()
    arrays["probe"] = case.probes[0].numpy()
    arrays["truth"] = float64_truth(case).numpy()
    np.savez(path, **arrays)


def load_case(network: str, size: str, path: str) -> Case:
    """The network with the weights, inputs and probe of a case file."""
    case = build(network, size)
    with np.load(path) as arrays:
        weights = {
            name: torch.from_numpy(arrays[f"weight/{name}"]) for name, _ in case.module.named_parameters()
        }
        inputs = tuple(torch.from_numpy(arrays[f"input/{index}"]) for index in range(len(case.inputs)))
        probe = torch.from_numpy(arrays["probe"])
    case.module.load_state_dict(weights, strict=False)
    return Case(case.module, inputs, probe[None])


if __name__ == "__main__":
    import sys

    write_case(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

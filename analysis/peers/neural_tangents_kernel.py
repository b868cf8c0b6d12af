"""neural-tangents on JAX, in an environment of its own: the same network with the exported weights, jitted.

Importing the library also imports TensorFlow for an interface that is not used here; an empty module stands in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

sys.modules["neural_tangents.experimental"] = ModuleType("neural_tangents.experimental")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import neural_tangents as nt  # noqa: E402
import numpy as np  # noqa: E402

from analysis.peers.jax_networks import apply  # noqa: E402

# Largest relative difference between the outputs of JAX and torch that counts as the same network; tuned here.
SAME_OUTPUT = 1e-4


@dataclass(frozen=True)
class Exported:
    """A case file as JAX sees it: weights, the packed inputs [N, ·], vᵀf as a function of both, vᵀf of torch."""

    weights: dict[str, Any]
    packed: Any
    scalar: Callable[[dict[str, Any], Any], Any]
    torch_scalar: Any


def load_case(network: str, size: str, path: str) -> Exported:
    """Read a case file. Inputs are packed into one array, which is what the library differentiates functions of."""
    options = json.loads(Path(__file__).with_name("config.json").read_text())[size][network]
    with np.load(path) as arrays:
        weights = {
            k.removeprefix("weight/"): jnp.asarray(v) for k, v in arrays.items() if k.startswith("weight/")
        }
        buffers = {
            k.removeprefix("buffer/"): jnp.asarray(v) for k, v in arrays.items() if k.startswith("buffer/")
        }
        inputs = [v for k, v in sorted(arrays.items()) if k.startswith("input/")]
        probe, output = arrays["probe"], arrays["output"]
    samples, forward = len(output), apply(network, options)
    shapes = [part.shape[1:] for part in inputs]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]

    def scalar(weights: dict[str, Any], packed: Any) -> Any:
        parts = jnp.split(packed, ends, axis=1)
        unpacked = tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))
        out = forward(weights, buffers, unpacked)
        return (out * probe).reshape(packed.shape[0], -1).sum(1, keepdims=True)

    packed = jnp.asarray(np.concatenate([part.reshape(samples, -1) for part in inputs], axis=1))
    return Exported(weights, packed, scalar, (output * probe).reshape(samples, -1).sum(1, keepdims=True))


def kernel_by(case: Exported, implementation: str) -> tuple[Callable[[], Any], int]:
    """The jitted kernel, and how many parameters it covers.

    Args:
        case: See `Exported`.
        implementation: Name of one of the library's own: JACOBIAN_CONTRACTION or STRUCTURED_DERIVATIVES.

    Raises:
        RuntimeError: the JAX network's output is not the torch network's.
    """
    there = np.asarray(case.scalar(case.weights, case.packed))
    difference = np.linalg.norm(there - case.torch_scalar) / np.linalg.norm(case.torch_scalar)
    if not difference < SAME_OUTPUT:
        raise RuntimeError(f"the network rewritten in JAX gives another output (relative {difference:.1e})")
    chosen = nt.NtkImplementation[implementation]
    function = nt.empirical_ntk_fn(case.scalar, trace_axes=(), vmap_axes=0, implementation=chosen)
    jitted = jax.jit(lambda weights, packed: function(packed, None, weights)[:, :, 0, 0])
    covered = sum(int(weight.size) for weight in case.weights.values())
    return lambda: np.asarray(jitted(case.weights, case.packed)), covered

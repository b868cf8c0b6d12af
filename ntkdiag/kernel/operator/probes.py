"""Vectors of parameters to try J u with. What is compared is ⟨v_i, J_i u⟩, which must be ⟨u, J_iᵀ v_i⟩."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ntkdiag.kernel.agreement import differs
from ntkdiag.kernel.operator.network import Tangent
from ntkdiag.kernel.operator.reference import Reference, inner
from ntkdiag.randomness import generator

# Random numbers that are drawn; they are repeated, because as many as there are parameters would take longer than products.
# A prime, so that they stand in other places in each row.
_BLOCK = 65_521


@dataclass(frozen=True)
class Probe:
    """One vector.

    Attributes:
        tangent: u.
        expected: ⟨u, g⟩ for each gradient g of the reference, float64.
        sizes: What these come to if the contributions of parameters add up like random numbers.
    """

    tangent: Tangent
    expected: Tensor
    sizes: Tensor


def probes_of(reference: Reference, count: int) -> list[Probe]:
    """Vectors to which all parameters contribute equally, and the sum of the gradients, as in a product with J Jᵀ.

    Args:
        reference: Whose gradients they are made of.
        count: How many of the first kind.
    """
    return [*(_even(reference, number) for number in range(count)), _sum(reference)]


def fault_of_push(pushed: Tensor, probe: Probe, reference: Reference) -> str | None:
    """How J u of a probe differs from what the reference's gradients make of it, or None if by rounding alone."""
    products = pushed.double() * reference.vectors.double()
    found = products.reshape(len(products), -1).sum(1).cpu()
    if len(reference.gradients) == 1:
        found = found.sum(0, keepdim=True)
    gap = (found - probe.expected).abs()
    if bool((gap <= reference.tolerance.of_parameter * probe.sizes).all()):
        return None
    return differs(float((gap / probe.sizes).amax()))


def _even(reference: Reference, number: int) -> Probe:
    """The vector u whose part for parameter p is (± g_p/|g_p| + noise at right angles to g_p) · |g|/|g_p|.

    g_p is the larger of the samples' gradients, g that of all parameters. A parameter that is left out, or has another scale
    or sign, changes the product by a share of |g| whatever its own size. Noise shows an error at right angles to the
    gradient. Signs keep an error that all parameters have in common from adding up.
    """
    gradients, norms = reference.gradients, reference.norms
    whole = float(norms.amax(0).square().sum().sqrt())
    least = math.sqrt(reference.tolerance.of_kernel) * whole  # what is smaller does not matter to the kernel
    signs = (
        torch.randint(2, (norms.shape[1],), generator=generator(number, "signs of the parameters")) * 2 - 1
    )
    noise = torch.randn(_BLOCK, generator=generator(number, "probe of the parameters"))
    tangent = []
    for each, sizes, sign in zip(zip(*gradients, strict=True), norms.T, signs.tolist(), strict=True):
        larger, size = each[int(sizes.argmax())], float(sizes.amax())
        noise = noise.roll(1)
        u = _tiled(noise.to(larger), larger.shape)
        if size > 0:
            u.add_(larger / size, alpha=sign - inner(larger, u) / size)
        tangent.append(u.mul_(whole / max(size, least) if whole else 1))
    even = torch.full((len(gradients),), whole * math.sqrt(len(tangent)), dtype=torch.float64)
    return Probe(tuple(tangent), _products(reference, tangent), even)


def _tiled(block: Tensor, shape: torch.Size) -> Tensor:
    """A tensor of this shape, filled with a block again and again."""
    count = math.prod(shape)
    return block.repeat(-(-count // len(block)))[:count].clone().reshape(shape)


def _sum(reference: Reference) -> Probe:
    """The sum of the gradients, of length 1 or so."""
    sizes = reference.norms.square().sum(1).sqrt()
    unit = float(sizes.square().sum().sqrt()) or 1.0
    tangent = [total / unit for total in reference.sums]
    return Probe(tuple(tangent), _products(reference, tangent), sizes)


def _products(reference: Reference, tangent: list[Tensor]) -> Tensor:
    """⟨u, g⟩ for each gradient."""
    found = [sum(inner(g, u) for g, u in zip(each, tangent, strict=True)) for each in reference.gradients]
    return torch.tensor(found, dtype=torch.float64)

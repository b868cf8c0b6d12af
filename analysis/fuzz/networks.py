"""Is the kernel of a network that nobody has written down silently wrong? See README.md.

python -m analysis.fuzz.networks [--count 200] [--out FOLDER] [--case NUMBER]

A network is a chain of random blocks on [N, T, C]: layers of every rule, views, tied uses, parameters derived from others,
linear algebra, and blocks that run again in the backward. Its number alone decides which. The truth is a loop written here:
one sample at a time, `.backward()` on the untouched module.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ntkdiag.errors import NtkdiagError
from ntkdiag.kernel import NTKOperator, gram_of
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
SAMPLES, TOKENS, CHANNELS, PROBES = 3, 4, 4, 2
WORDS = 7  # of the embedding
# Largest difference, as a share of the largest entry, that is still rounding in float64.
ROUNDING = 1e-8
WAYS = ("auto", "exact", "autograd", "operator")
Block = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Recompute(torch.autograd.Function):
    """A block that runs without gradients in the forward and again in the backward."""

    @staticmethod
    def forward(ctx: Any, block: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.block, ctx.parameters = block, parameters
        ctx.save_for_backward(x)
        with torch.no_grad():
            return block(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        x = ctx.saved_tensors[0].detach().requires_grad_(True)
        with torch.enable_grad():
            out = ctx.block(x)
        return (None, *torch.autograd.grad((out,), [x, *ctx.parameters], gradients, allow_unused=True))


def _square(*, scale: float = 0.5) -> nn.Parameter:
    return nn.Parameter(scale * torch.randn(CHANNELS, CHANNELS))


def _linear(part: nn.Module) -> Block:
    part.layer = nn.Linear(CHANNELS, CHANNELS, bias=bool(torch.randint(2, ())))
    function = [torch.tanh, F.gelu, F.silu, torch.sin, F.softplus][int(torch.randint(5, ()))]
    return lambda m, h, words: function(m.layer(h))


def _tied(part: nn.Module) -> Block:
    part.layer = nn.Linear(CHANNELS, CHANNELS)
    return lambda m, h, words: m.layer(torch.tanh(m.layer(h))) + F.linear(h, m.layer.weight.T)


def _einsum(part: nn.Module) -> Block:
    part.p = _square()
    return lambda m, h, words: torch.einsum("ntc,cd->ntd", h, m.p) + h @ m.p.flip(0)


def _conv1d(part: nn.Module) -> Block:
    groups = [1, 2, 4][int(torch.randint(3, ()))]
    part.layer = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1, groups=groups)
    return lambda m, h, words: m.layer(h.transpose(1, 2)).transpose(1, 2)


def _conv2d(part: nn.Module) -> Block:
    part.layer = nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")
    return lambda m, h, words: m.layer(h[:, None]).mean(1)


def _norm(part: nn.Module) -> Block:
    kind = int(torch.randint(3, ()))
    if kind == 0:
        part.layer = nn.LayerNorm(CHANNELS)
    elif kind == 1:
        part.layer = nn.RMSNorm(CHANNELS)
    else:
        part.layer = nn.GroupNorm(2, CHANNELS)
        return lambda m, h, words: m.layer(h.transpose(1, 2)).transpose(1, 2)
    return lambda m, h, words: m.layer(h)


def _attention(part: nn.Module) -> Block:
    part.layer = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)
    return lambda m, h, words: m.layer(h, h, h, need_weights=False)[0]


def _fused_attention(part: nn.Module) -> Block:
    part.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
    return lambda m, h, words: F.scaled_dot_product_attention(*m.qkv(h).chunk(3, -1))


def _elementwise(part: nn.Module) -> Block:
    shape = [(), (CHANNELS,), (TOKENS, 1), (1, TOKENS, CHANNELS)][int(torch.randint(4, ()))]
    part.gain, part.shift = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.randn(shape))
    return lambda m, h, words: torch.addcmul(m.shift, h, m.gain.exp() * m.gain)


def _prelu(part: nn.Module) -> Block:
    part.layer = nn.PReLU(CHANNELS if torch.randint(2, ()) else 1)
    return lambda m, h, words: m.layer(h.transpose(1, 2)).transpose(1, 2)


def _embedding(part: nn.Module) -> Block:
    part.table = nn.Embedding(WORDS, CHANNELS, padding_idx=0 if torch.randint(2, ()) else None)
    return lambda m, h, words: h + m.table(words)


def _bilinear(part: nn.Module) -> Block:
    part.layer = nn.Linear(CHANNELS, 2 * CHANNELS)

    def gated(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        first, second = m.layer(h).chunk(2, -1)
        return first * torch.sigmoid(second) * h

    return gated


def _views(part: nn.Module) -> Block:
    part.layer = nn.Linear(TOKENS, TOKENS)
    order = torch.randperm(CHANNELS)
    return lambda m, h, words: m.layer(h.transpose(1, 2)[:, order].roll(1, 2)).transpose(1, 2).flip(1)


def _flattened(part: nn.Module) -> Block:
    part.p = nn.Parameter(0.3 * torch.randn(TOKENS * CHANNELS, TOKENS * CHANNELS))
    return lambda m, h, words: (h.flatten(1) @ m.p).unflatten(1, (TOKENS, CHANNELS))


def _derived(part: nn.Module) -> Block:
    part.p, part.q = _square(), nn.Parameter(torch.randn(CHANNELS, 1))
    kind = int(torch.randint(3, ()))
    if kind == 0:
        return lambda m, h, words: F.linear(h, m.p @ m.p.T / 2 + m.q)
    if kind == 1:
        return lambda m, h, words: F.linear(h, m.q * F.normalize(m.p, dim=1))
    return lambda m, h, words: h @ torch.softmax(m.p, 0) * m.q.squeeze(1)


def _weight_norm(part: nn.Module) -> Block:
    layer = nn.Linear(CHANNELS, CHANNELS)
    part.layer = nn.utils.parametrizations.weight_norm(layer, dim=[0, None][int(torch.randint(2, ()))])
    return lambda m, h, words: m.layer(h).tanh()


def _recurrent(part: nn.Module) -> Block:
    part.layer = [nn.GRU, nn.LSTM][int(torch.randint(2, ()))](CHANNELS, CHANNELS, batch_first=True)
    return lambda m, h, words: m.layer(h)[0]


def _algebra(part: nn.Module) -> Block:
    part.p = _square(scale=0.3)
    kind = int(torch.randint(5, ()))

    def definite(m: nn.Module) -> Tensor:
        return m.p @ m.p.T + 2 * torch.eye(CHANNELS, dtype=m.p.dtype)

    def solved(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        return torch.linalg.solve(definite(m), h.transpose(1, 2)).transpose(1, 2)

    def gated(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        gate = torch.linalg.det(definite(m) + h.transpose(1, 2) @ h / TOKENS)
        return h * torch.log(gate)[:, None, None] / 4

    def inverted(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        return h @ torch.linalg.inv(definite(m))

    def rooted(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(torch.linalg.cholesky(definite(m)), h, upper=False, left=False)

    def exponential(m: nn.Module, h: Tensor, words: Tensor) -> Tensor:
        return h @ torch.linalg.matrix_exp(m.p - m.p.T)

    return (solved, gated, inverted, rooted, exponential)[kind]


def _recomputed(part: nn.Module) -> Block:
    part.layer = nn.Linear(CHANNELS, CHANNELS)
    kind = int(torch.randint(3, ()))

    def block(m: nn.Module, h: Tensor) -> Tensor:
        return torch.tanh(m.layer(h)) * h

    if kind == 0:
        return lambda m, h, words: Recompute.apply(lambda x: block(m, x), h, *m.layer.parameters())
    return lambda m, h, words: checkpoint(block, m, h, use_reentrant=kind == 1)


BLOCKS = (
    _linear, _tied, _einsum, _conv1d, _conv2d, _norm, _attention, _fused_attention, _elementwise, _prelu, _embedding,
    _bilinear, _views, _flattened, _derived, _weight_norm, _recurrent, _algebra, _recomputed,
)  # fmt: skip


class RandomNetwork(nn.Module):
    """A chain of 2 to 5 random blocks, each added to its input or not, and an output of 3 numbers or of one a token."""

    def __init__(self, number: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            self.names: list[str] = []
            self._blocks: list[tuple[Block, bool]] = []
            self.parts = nn.ModuleList()
            for _ in range(int(torch.randint(2, 6, ()))):
                make = BLOCKS[int(torch.randint(len(BLOCKS), ()))]
                part = nn.Module()
                self._blocks.append((make(part), bool(torch.randint(2, ()))))
                self.parts.append(part)
                self.names.append(make.__name__.strip("_"))
            self.again = len(self.parts) > 2 and bool(torch.randint(2, ()))  # the first block a second time
            self.head = nn.Linear(CHANNELS, 3)
            self._pooled = bool(torch.randint(2, ()))
        self.double()

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        h = x
        order = list(zip(self.parts, self._blocks, strict=True))
        for part, (block, added) in order + order[: int(self.again)]:
            out = block(part, h, words)
            h = h + out if added else out
        return self.head(h.mean(1)) if self._pooled else self.head(h).sum(-1)


def inputs_of(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    # With a gradient: torch leaves out a block under a re-entrant checkpoint whose input has none, and warns.
    x = torch.randn(SAMPLES, TOKENS, CHANNELS, generator=generator, dtype=torch.float64).requires_grad_(True)
    return x, torch.randint(WORDS, (SAMPLES, TOKENS), generator=generator)


def jacobians(network: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Every row of the Jacobian of every sample, [N, D, P]: a forward and a `.backward()` each, the slow truth."""
    parameters = list(network.parameters())
    rows = []
    for place in range(SAMPLES):
        one = tuple(tensor[place : place + 1] for tensor in inputs)
        for output in range(network(*one)[0].numel()):
            network.zero_grad(set_to_none=True)
            network(*one)[0].flatten()[output].backward()
            flat = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
            rows.append(torch.cat(flat))
    network.zero_grad(set_to_none=True)
    return torch.stack(rows).unflatten(0, (SAMPLES, -1))


def tried(number: int) -> dict[str, Any]:
    """One network: for every way to its kernel, "agrees", "refused" with the reason, or by how much it differs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # re-entrant checkpoints of inputs without gradients
        network, inputs = RandomNetwork(number).eval(), inputs_of(number)
        rows = jacobians(network, inputs)
        generator = torch.Generator().manual_seed(number)
        cotangents = torch.randint(2, (PROBES, rows.shape[1]), generator=generator).double() * 2 - 1
        projected = torch.einsum("rd,ndp->rnp", cotangents, rows)
        kernel = projected @ projected.transpose(1, 2)
        vector = torch.randn(rows.shape[0] * rows.shape[1], generator=generator, dtype=torch.float64)
        product = rows.flatten(0, 1) @ (rows.flatten(0, 1).T @ vector)
        shaped = cotangents.unflatten(1, network(*inputs).shape[1:])
        found: dict[str, Any] = {"number": number, "blocks": " ".join(network.names)}
        for way in WAYS:
            truth = product if way == "operator" else kernel
            found[way] = _outcome(way, network, inputs, shaped, vector, truth)
    return found


def _outcome(
    way: str,
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    cotangents: Tensor,
    vector: Tensor,
    truth: Tensor,
) -> str:
    try:
        if way == "operator":
            got = NTKOperator.of(network, inputs).apply(vector)
        else:
            got = gram_of(network, inputs, cotangents, engine=way)
    except NtkdiagError as error:
        return f"refused: {error}"
    gap = float((got - truth).abs().max() / truth.abs().max())
    return "agrees" if gap <= ROUNDING else f"differs by {gap:.2g}" if math.isfinite(gap) else "not finite"


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """How many networks agree, are refused or differ, a row a way."""
    kinds = table[list(WAYS)].apply(lambda column: column.str.split(":").str[0].str.split(" by").str[0])
    return kinds.apply(lambda column: column.value_counts()).fillna(0).astype(int).T


def main() -> int:
    """Try the networks; the exit code is 1 if one differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--case", type=int, help="repeat one network")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.case is not None:
        print(RandomNetwork(options.case), tried(options.case))
        return 0
    table = pd.DataFrame(tried(number) for number in range(options.count))
    write_text(options.out / "networks.csv", table.to_csv(index=False))
    print(summary(table).to_string())
    odd = table[(table[list(WAYS)] != "agrees").any(axis=1)]
    print(odd.to_string(index=False) if len(odd) else "every kernel agrees with plain autograd")
    return int(np.any(table[list(WAYS)].apply(lambda c: c.str.startswith(("differs", "not finite")))))


if __name__ == "__main__":
    raise SystemExit(main())

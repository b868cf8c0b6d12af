"""What every process does in the tests of networks that `fully_shard` has sharded: build one from a seed, and measure it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from networks.case import Net
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ntkdiag.data import mixture
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, fresh_controls, measure
from ntkdiag.kernel import gram_of
from ntkdiag.kernel.directions import given
from ntkdiag.kernel.engines import run
from ntkdiag.kernel.sharded.units import Unit
from ntkdiag.models import build
from ntkdiag.process import schedules

WIDTH = 6


def fully_sharded(kind: str, *, shard: bool = True, **options: Any) -> dict[str, Any]:
    """The kernel of a network of several blocks whose parameters are sharded over the processes, and what is left of it."""
    import torch.distributed.fsdp as fsdp

    torch.manual_seed(0)
    first, second, last = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 2)
    tied = [second, nn.Tanh(), second] if kind == "tied" else [second]
    net = nn.Sequential(first, nn.Tanh(), *tied, nn.Tanh(), last).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    calls: list[int] = []
    net[1].register_forward_hook(lambda *ignored: calls.append(1))
    if shard:
        if kind == "grouped":
            fsdp.fully_shard([net[0], net[2]])
        else:
            fsdp.fully_shard(net[2])
        fsdp.fully_shard(net, reshard_after_forward=kind != "left gathered")
    before = net(x).detach()
    found = gram_of(net, (x,), torch.eye(2, dtype=torch.float64), distributed=shard, **options)
    heard = len(calls)
    pieces = sum(isinstance(p, torch.distributed.tensor.DTensor) for p in net.parameters()) if shard else 6
    net(x).sum().backward()  # the next step of training
    gradient = net[0].weight.grad
    assert torch.equal(net(x).detach(), before)
    return {
        "kernel": found,
        "gradient": gradient.full_tensor() if shard else gradient,
        "pieces": pieces,
        "heard": heard > 1,
    }


def failing(place: str, distributed: bool = True) -> dict[str, Any]:
    """The kernel of a sharded network that fails in one process alone, in the forward or the backward of its samples."""
    import torch.distributed.fsdp as fsdp

    def refuse(gradient: Tensor) -> None:
        raise RuntimeError("a backward of three samples")

    def forward(net: Net, x: Tensor) -> Tensor:
        y = x + torch.tanh(net.layer(x))
        last = distributed and torch.distributed.get_rank() == 1
        if net.fails == "forward" and len(x) == 3 and last:
            raise ValueError("a forward of three samples")
        if net.fails == "backward" and len(x) == 3 and last and y.requires_grad:
            y.register_hook(refuse)
        return y

    torch.manual_seed(0)
    blocks = [Net(forward, layer=nn.Linear(3, 3)) for _ in range(3)]
    for block, fails in zip(blocks, ("", place, ""), strict=True):
        block.fails = fails
    net = nn.Sequential(*blocks).double()
    if distributed:
        for part in (*blocks, net):
            fsdp.fully_shard(part)
    x = torch.randn(6, 3, dtype=torch.float64)
    found = run(net, (x,), given(torch.ones(2, 3, dtype=torch.float64)), distributed=distributed)
    return {"kernel": found.per_probe, "coverage": found.coverage}


@contextmanager
def counted(*networks: nn.Module) -> Iterator[list[int]]:
    """The most bytes of whole parameters that each network has at a time inside the block."""
    most = [0 for _ in networks]
    usual = Unit.allocate

    def allocate(unit: Unit) -> None:
        usual(unit)
        for i, network in enumerate(networks):
            most[i] = max(most[i], sum(p.untyped_storage().nbytes() for p in network.parameters()))

    Unit.allocate = allocate  # type: ignore[method-assign]
    try:
        yield most
    finally:
        Unit.allocate = usual  # type: ignore[method-assign]


def small(seed: int, shard: bool) -> Denoiser:
    """A network at its zero start, sharded in parts."""
    import torch.distributed.fsdp as fsdp

    network = build("mlp", (2,), seed=seed, width=8, depth=3, frequencies=2).double()
    if seed > 1:
        for parameter in network.out.parameters():
            nn.init.zeros_(parameter)
    if shard:
        for part in (network.condition, *network.layers, network):
            fsdp.fully_shard(part)
    return Denoiser(network, schedules.cosine(), "v", call="log_snr")


def controls(distributed: bool) -> tuple[list[str], tuple[str, ...], list[Tensor]]:
    """Controls of a sharded network: their names, what was given weights in them, and the weights."""
    made, woken = fresh_controls(
        lambda seed: small(seed, distributed),
        small(1, distributed),
        torch.randn(4, 2),
        2,
        distributed=distributed,
    )
    weights = [made["untrained"].network.out.weight, made["untrained 2"].network.layers[0].weight]
    return list(made), woken, [w.full_tensor() if distributed else w for w in weights]


def sharded_measurement(distributed: bool, folder: Path) -> dict[str, Any]:
    """A diagnosis of a sharded network, with one at its zero start, and once more from the parts that are kept of it."""
    networks = [small(seed, distributed) for seed in (1, 2)]
    whole = small(1, False).network
    sizes = [sum(p.nbytes for p in part.parameters()) for part in (whole.condition, *whole.layers)]
    allowed = sum(p.nbytes for p in whole.parameters()) - sum(sizes) + max(sizes)

    def measured() -> Diagnosis:
        settings: dict[str, Any] = {"samples": 6, "probes": 1, "refs": {"zero": networks[1]}}
        return measure(
            networks[0], mixture(train=64, held_out=16), 2, distributed=distributed, resume=folder, **settings
        )

    with counted(*networks) as most:
        found = measured()
        again = measured()
    columns = ["trace", "effective_rank", "gsnr"]
    both = {"own": found, "zero": found.refs["zero"]}
    return {
        "summaries": {name: torch.as_tensor(one.summary[columns].to_numpy()) for name, one in both.items()},
        "networks": {name: one.meta["network"] for name, one in both.items()},
        "same again": found.summary.equals(again.summary),
        "within": max(most) <= allowed,
        "parts": len(list(folder.glob("*"))),
    }


def _plain(block: Net, x: Tensor, c: Tensor) -> Tensor:
    scale, shift = block.modulation(c).chunk(2, dim=1)
    return x + block.last(torch.tanh(block.first(block.norm(x) * (1 + scale) + shift)))


def _checkpointed(block: Net, x: Tensor, c: Tensor) -> Tensor:
    inner: Tensor = checkpoint(
        lambda y: block.last(torch.tanh(block.first(y))), block.norm(x), use_reentrant=False
    )
    return x + inner * block.modulation(c).chunk(2, dim=1)[0]


def _derived(block: Net, x: Tensor, c: Tensor) -> Tensor:
    direction = block.first.weight / block.first.weight.norm(dim=1, keepdim=True)
    return x + block.last(torch.tanh(x @ direction.T + block.first.bias)) * block.modulation(c)[:, :WIDTH]


def _without_rule(block: Net, x: Tensor, c: Tensor) -> Tensor:
    return _plain(block, x, c) + torch.cdist(x[:, None], block.first.weight[None, :WIDTH])[:, 0]


def _transformed(block: Net, x: Tensor, c: Tensor) -> Tensor:
    slope = torch.func.grad(lambda y: torch.tanh(block.last(torch.tanh(block.first(y)))).sum())(x)
    return x + slope * block.modulation(c)[:, :WIDTH]


# The kind of network → the forwards of its four blocks.
BLOCKS = {
    "plain": (_plain,) * 4,
    "odd": (_plain, _checkpointed, _derived, _plain),
    "without rule": (_plain, _plain, _without_rule, _plain),
    "transformed": (_plain, _plain, _plain, _transformed),
}


def _in_blocks(net: Net, x: Tensor, level: Tensor) -> Tensor:
    c = torch.tanh(net.embed(level))
    x = net.enter(x)
    for block in net.blocks:
        x = block(x, c)
    if net.outside:  # a parameter of a block that has been given up
        x = x @ net.blocks[0].last.weight[:, :WIDTH]
    return net.leave(x)


def in_blocks(
    kind: str,
    dtype: torch.dtype = torch.float64,
    *,
    samples: int = 5,
    distributed: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """The kernel of a network of four sharded blocks, its coverage, and the most bytes of whole parameters at a time."""
    import torch.distributed.fsdp as fsdp

    torch.manual_seed(0)
    blocks = [
        Net(
            forward,
            norm=nn.LayerNorm(WIDTH),
            modulation=nn.Linear(WIDTH, 2 * WIDTH),
            first=nn.Linear(WIDTH, 2 * WIDTH + wider),
            last=nn.Linear(2 * WIDTH + wider, WIDTH),
        )
        for forward, wider in zip(
            BLOCKS[kind], (0, 0, 1, 0), strict=True
        )  # two processes cannot share the third evenly
    ]
    ends = {"embed": nn.Linear(1, WIDTH), "enter": nn.Linear(3, WIDTH), "leave": nn.Linear(WIDTH, 2)}
    net = Net(_in_blocks, blocks=nn.ModuleList(blocks), **ends).to(dtype)
    net.outside = kind == "odd"
    sizes = [sum(p.nbytes for p in block.parameters()) for block in blocks]
    root = sum(p.nbytes for p in net.parameters()) - sum(sizes)
    inputs = (torch.randn(samples, 3, dtype=dtype), torch.randn(samples, 1, dtype=dtype))
    cotangents = torch.randn(3, samples, 2, dtype=dtype)
    if distributed:
        for block in net.blocks:
            fsdp.fully_shard(block)
        fsdp.fully_shard(net)
    with counted(net) as most:
        found = run(net, inputs, given(cotangents, samples), distributed=distributed, **options)
    return {
        "kernel": found.per_probe,
        "coverage": found.coverage,
        "most": most[0],
        "root and largest": root + max(sizes),
        "everything": root + sum(sizes),
        "pieces": sum(isinstance(p, torch.distributed.tensor.DTensor) for p in net.parameters())
        if distributed
        else 0,
    }

"""What every process does in the tests of networks that `fully_shard` has sharded: build one from a seed, and measure it."""

from __future__ import annotations

from typing import Any

import torch
from networks.case import Net
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ntkdiag.denoiser import Denoiser
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


def sharded_measurement(distributed: bool) -> dict[str, Any]:
    """A diagnosis of a sharded network."""
    import torch.distributed.fsdp as fsdp

    from ntkdiag.data import mixture
    from ntkdiag.diagnosis import measure

    networks = []
    for seed in (1, 2):
        network = build("mlp", (2,), seed=seed, width=8, depth=1, frequencies=2).double()
        if distributed:
            fsdp.fully_shard(network)
        networks.append(Denoiser(network, schedules.cosine(), "v", call="log_snr"))
    data = mixture(train=64, held_out=16)
    found = measure(
        networks[0], data, 2, samples=6, probes=1, refs={"untrained": networks[1]}, distributed=distributed
    )
    columns = ["trace", "effective_rank", "gsnr"]
    return {
        name: torch.as_tensor(one.summary[columns].to_numpy())
        for name, one in (("own", found), ("untrained", found.refs["untrained"]))
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
    most = 0
    usual = Unit.allocate

    def counted(unit: Unit) -> None:
        nonlocal most
        usual(unit)
        most = max(most, sum(p.untyped_storage().nbytes() for p in net.parameters()))

    Unit.allocate = counted  # type: ignore[method-assign]
    try:
        found = run(net, inputs, given(cotangents, samples), distributed=distributed, **options)
    finally:
        Unit.allocate = usual  # type: ignore[method-assign]
    return {
        "kernel": found.per_probe,
        "coverage": found.coverage,
        "most": most,
        "root and largest": root + max(sizes),
        "everything": root + sum(sizes),
        "pieces": sum(isinstance(p, torch.distributed.tensor.DTensor) for p in net.parameters())
        if distributed
        else 0,
    }

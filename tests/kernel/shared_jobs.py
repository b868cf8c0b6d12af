"""What every process of a group does in the tests of shared kernels: build a network from a seed, and measure it."""

from __future__ import annotations

from typing import Any

import torch
from cases import CASES
from networks.case import Net
from streaming_truth import cotangents_for
from torch import Tensor, distributed, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.distributed import Processes
from ntkdiag.distributed.parcels import Parcel
from ntkdiag.errors import MeasurementError
from ntkdiag.kernel import gram, gram_of
from ntkdiag.kernel.directions import given
from ntkdiag.kernel.engines import run
from ntkdiag.kernel.sketch import matrix_of
from ntkdiag.models import build
from ntkdiag.process import schedules


def of_case(name: str, samples: int, dtype: torch.dtype = torch.float64, **options: Any) -> dict[str, Any]:
    """The kernel of one of the networks of `cases`, [2, N, N], and what served its parameters."""
    module, inputs = CASES[name](0, samples, dtype)
    found = run(module, inputs, given(cotangents_for(module, inputs)), **options)
    return {"kernel": found.per_probe, "coverage": found.coverage}


def of_model(model: str, samples: int, dtype: torch.dtype = torch.float64, **options: Any) -> dict[str, Any]:
    """A kernel of one of the package's models, between samples at several noise levels."""
    shape = (5,) if model == "mlp" else (1, 8, 8)
    sizes = {"width": 16} if model == "mlp" else {"width": 16, "depth": 1, "heads": 2, "patch": 2}
    torch.manual_seed(0)
    network = build(model, shape, **sizes).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    denoiser = Denoiser(network, schedules.cosine(), "v", call="log_snr")
    x0 = torch.randn(samples, *shape, dtype=dtype)
    found = gram(denoiser, x0, torch.linspace(-4, 4, samples), probes=2, **options)
    return {"matrix": found.matrix, "stderr": found.stderr, "coverage": found.coverage} | found.groups


def of_rank(samples: int, *, weights: int = 0, data: int = 0, directions: int = 0, **options: Any) -> Tensor:
    """A kernel for which each process may be given something else: seeds are multiplied by its rank."""
    rank = distributed.get_rank()
    torch.manual_seed(weights * rank)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    torch.manual_seed(data * rank)
    x = torch.randn(samples + (rank if data < 0 else 0), 3, dtype=torch.float64)
    torch.manual_seed(directions * rank)
    return gram_of(network, (x,), torch.randn(2, 2, dtype=torch.float64), distributed=True, **options)


def _failing(net: Net, x: Tensor) -> Tensor:
    if (x[:, 0] == net.trigger).any():
        raise net.error
    return net.layer(x)


def failing(error: Exception, position: int, **options: Any) -> Tensor:
    """A network that raises an error for one sample of seven."""
    torch.manual_seed(0)
    net = Net(_failing, layer=nn.Linear(3, 2))
    x = torch.randn(7, 3)
    net.trigger, net.error = float(x[position, 0]), error
    return gram_of(net, (x,), torch.ones(1, 2), distributed=True, **options)


def not_finite(position: int) -> Tensor:
    """A network whose output for one sample of seven is not finite."""
    torch.manual_seed(0)
    x = torch.randn(7, 3)
    net = Net(lambda net, x: net.layer(x).log(), layer=nn.Linear(3, 2))
    with torch.no_grad():
        net.layer.weight.fill_(0)
        net.layer.weight[:, 0] = 1
        net.layer.bias.fill_(4)
    x[position, 0] = -5
    return gram_of(net, (x,), torch.ones(1, 2), distributed=True)


def narrow(limit: int, samples: int, **options: Any) -> Tensor:
    """A network for whose batches of more than some samples memory does not suffice."""

    def forward(net: Net, x: Tensor) -> Tensor:
        if len(x) > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return net.last(torch.tanh(net.first(x)))

    torch.manual_seed(0)
    net = Net(forward, first=nn.Linear(3, 4), last=nn.Linear(4, 2)).double()
    x = torch.randn(samples, 3, dtype=torch.float64)
    return gram_of(net, (x,), torch.ones(1, 2, dtype=torch.float64), **options)


def of_two_kinds(samples: int, **options: Any) -> tuple[Tensor, str]:
    """A network that passes large samples through another layer than small ones."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return net.last(net.large(x) if bool((x > 9).any()) else net.small(x))

    torch.manual_seed(0)
    net = Net(forward, large=nn.Linear(3, 4), small=nn.Linear(3, 4), last=nn.Linear(4, 2)).double()
    x = torch.randn(samples, 3, dtype=torch.float64)
    x[: samples // 2] += 20  # these go to the first process
    return gram_of(net, (x,), torch.ones(1, 2, dtype=torch.float64), **options)


def batches(samples: int, **options: Any) -> list[int]:
    """Sizes of the batches that this process passes through the network."""
    sizes: list[int] = []

    def forward(net: Net, x: Tensor) -> Tensor:
        sizes.append(len(x))
        return net.layer(x)

    torch.manual_seed(0)
    net = Net(forward, layer=nn.Linear(3, 2))
    gram_of(net, (torch.randn(samples, 3),), torch.ones(1, 2), distributed=True, **options)
    return sizes


def elsewhere() -> None:
    """The processes wait at different places."""
    Processes().meet(f"place {distributed.get_rank()}")


def recovered() -> str:
    """After an error inside, all go on."""
    processes = Processes()
    try:
        with processes.in_step():
            if processes.rank == 1:
                raise MeasurementError("process 1 has had enough")
    except MeasurementError as error:
        processes.meet("afterwards")
        return str(error)
    return "no error"


def exchanged(counts: list[int], dtype: torch.dtype) -> list[Tensor]:
    """Rows r + 10 i of each process r, all of them and by columns."""
    processes = Processes()
    n = counts[processes.rank]
    rows = (torch.arange(n * 3).reshape(n, 3) + 100 * processes.rank).to(dtype)
    parcels = [
        Parcel(rows),
        Parcel(rows, columns=True),
        Parcel(rows.bool()),
        Parcel(rows, turn=0),
        Parcel(rows, turn=1),
    ]
    return processes.exchange("rows", parcels, counts)


class Unsendable(Exception):
    """An exception that does not survive being sent."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("a lock", a + b)


def unsendable(position: int) -> str:
    """What comes of an exception that does not survive being sent."""
    try:
        failing(Unsendable(1, 2), position)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def preconditioned(**options: Any) -> Tensor:
    """A kernel with a preconditioner that is a factor a row times a factor a column."""
    module, inputs = CASES["conv_2d"](0, 5)
    generator = torch.Generator().manual_seed(3)

    def factors(parameter: Tensor) -> Tensor:
        shape = matrix_of(parameter.shape)
        rows, columns = (1 + torch.rand(size, generator=generator, dtype=torch.float64) for size in shape)
        return (rows[:, None] * columns).reshape(parameter.shape)

    by_name = {name: factors(parameter) for name, parameter in module.named_parameters()}
    return gram_of(module, inputs, cotangents_for(module, inputs), preconditioner=by_name, **options)


def traffic(name: str, samples: int, **options: Any) -> float:
    """Bytes of gradients and outputs that this process receives from others for a kernel of a case."""
    received = 0
    usual = Processes._all_to_all

    def counted(self: Processes, what: str, sent: Tensor, to: list[int], of: list[int]) -> Tensor:
        nonlocal received
        received += sent.element_size() * (sum(of) - of[self.rank])
        return usual(self, what, sent, to, of)

    Processes._all_to_all = counted  # type: ignore[method-assign]
    try:
        of_case(name, samples, torch.float32, distributed=True, **options)
    finally:
        Processes._all_to_all = usual  # type: ignore[method-assign]
    return received

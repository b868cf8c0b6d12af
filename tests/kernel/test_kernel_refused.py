"""Networks and vectors that there is no kernel of, each refused in a line, and what works although it is unusual."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from kernel_networks import mlp_denoiser, normal, perceptron
from networks.case import Net
from operator_truth import gram_by
from references import brute_gram, relative_error
from streaming_truth import state
from torch import Tensor, nn

from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.kernel import NTKOperator, gram, gram_of

GRAMS = ["auto", "exact", "autograd"]
every_gram = pytest.mark.parametrize("engine", GRAMS)
every_engine = pytest.mark.parametrize("engine", [*GRAMS, "operator"])
V = torch.ones(1, 4, dtype=torch.float64)


class Ungraded(nn.Module):
    """A network without gradients in its output, in the ways that people get one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.body, self._how = perceptron(), how

    def forward(self, x: Tensor) -> Tensor:
        if self._how == "no_grad":
            with torch.no_grad():
                return self.body(x)
        if self._how == "inference_mode":
            with torch.inference_mode():
                return self.body(x).clone()
        return self.body(x).detach()


@every_engine
@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "detach"])
def test_an_output_without_gradients_is_refused_and_names_the_parameters(
    how: str, check: bool, engine: str
) -> None:
    words = r"got none to any of body\.0\.weight, body\.0\.bias, body\.2\.weight, body\.2\.bias\. Look for torch\.no_grad"
    with pytest.raises(MeasurementError, match=words):
        gram_by(engine, Ungraded(how), (normal(3, 3),), V, check=check)


@every_engine
def test_a_kernel_that_is_zero_is_none_the_less_one(engine: str) -> None:
    """As in a bucket where every unit is off: autograd passes gradients, and they are zero."""
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4, bias=False)).double()
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    assert not gram_by(engine, net, (normal(3, 3),), V).any()


@every_engine
def test_inference_mode_around_the_call_changes_nothing(engine: str) -> None:
    net, x = perceptron(), normal(3, 3)
    expected = gram_of(net, (x,), V)
    with torch.inference_mode():
        found = gram_by(engine, net, (x * 1,), V * 1)
    assert relative_error(found, expected) < 1e-12


@every_gram
def test_inference_mode_around_a_denoiser_changes_nothing(engine: str) -> None:
    denoiser, x0 = mlp_denoiser(), normal(3, 3, 2)
    for kernel in ("trace", "residual"):
        expected = gram(denoiser, x0, 0.5, kernel=kernel).matrix
        with torch.inference_mode():
            found = gram(denoiser, x0 * 1, 0.5, kernel=kernel, engine=engine).matrix
        assert relative_error(found, expected) < 1e-12


def test_parameters_without_values_or_graph_are_refused() -> None:
    with torch.inference_mode():
        made = nn.Linear(3, 4)
    with pytest.raises(
        InputError, match=r"weight: .*made inside torch\.inference_mode\(\)\. Load the network outside"
    ):
        gram_of(made, (torch.ones(2, 3),), torch.ones(1, 4))
    with pytest.raises(
        InputError, match="weight: expected a parameter with values; got one on the meta device"
    ):
        gram_of(nn.Linear(3, 4, device="meta"), (torch.ones(2, 3),), torch.ones(1, 4))


@every_gram
@pytest.mark.parametrize(
    ("cotangents", "words"),
    [
        (V + 1j, "cotangents: expected a tensor of real numbers; got complex numbers"),
        ([[1.0, 1.0, 1.0, 1.0]], "cotangents: expected a tensor of real numbers; got list"),
    ],
)
def test_vectors_that_are_not_real_are_refused(cotangents: Any, words: str, engine: str) -> None:
    with pytest.raises(InputError, match=words):
        gram_of(perceptron(), (normal(3, 3),), cotangents, engine=engine)


@pytest.mark.parametrize("name", ["x0", "log_snr", "epsilon"])
def test_samples_that_are_complex_are_refused(name: str) -> None:
    given = {"x0": normal(3, 3, 2), "log_snr": torch.zeros(3), "epsilon": normal(3, 3, 2, seed=1)}
    given[name] = given[name] + 0j
    with pytest.raises(InputError, match=f"{name}: expected real numbers; got complex numbers"):
        gram(mlp_denoiser(), **given)


@every_engine
def test_vectors_of_whole_numbers_are_taken(engine: str) -> None:
    net, x = perceptron(), normal(3, 3)
    expected = gram_of(net, (x,), V)
    assert torch.equal(gram_of(net, (x,), torch.ones(1, 4, dtype=torch.int64), engine="auto"), expected)
    assert relative_error(gram_by(engine, net, (x,), V.bool()), expected) < 1e-12


@every_engine
@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (
            lambda m, x: torch.fft.fft(m.layer(x)),
            r"got complex128\. Return real and imaginary parts side by side",
        ),
        (lambda m, x: m.layer(x).argmax(1), "real floating-point numbers; got int64"),
    ],
)
def test_outputs_that_are_not_real_are_refused(forward: Any, words: str, engine: str) -> None:
    net = Net(forward, layer=nn.Linear(3, 4).double())
    with pytest.raises(InputError, match=words):
        gram_by(engine, net, (normal(3, 3),), V)


@every_engine
def test_an_output_of_one_number_a_sample_without_a_dimension(engine: str) -> None:
    net = Net(lambda m, x: m.layer(x).tanh().sum(1), layer=nn.Linear(3, 4).double())
    x, each = normal(5, 3), normal(2, 5, seed=1)
    assert relative_error(gram_by(engine, net, (x,), each), brute_gram(net, (x,), each)) < 1e-12
    shared = gram_by(engine, net, (x,), torch.tensor([1.0, -2.0]))
    truth = brute_gram(net, (x,), torch.tensor([[1.0], [-2.0]]).expand(2, 5))
    assert relative_error(shared, truth) < 1e-12


# --- traced, scripted, exported, replicated and compiled networks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@every_engine
@pytest.mark.parametrize("kind", ["traced", "scripted", "exported", "data parallel"])
def test_networks_of_other_kinds_are_right(kind: str, engine: str) -> None:
    net, x, v = perceptron(), normal(3, 3), normal(2, 3, 4, seed=1)
    truth = brute_gram(net, (x,), v)
    if kind == "traced":
        made: nn.Module = torch.jit.trace(net, (x,))
    elif kind == "scripted":
        made = torch.jit.script(net)
    elif kind == "exported":
        batch = torch.export.Dim("batch", min=1)
        made = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    else:
        made = nn.DataParallel(net)
    assert relative_error(gram_by(engine, made, (x,), v), truth) < 1e-12


@pytest.fixture(scope="module")
def _one_process() -> Iterator[None]:
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def sharded(kind: str) -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    mesh = torch.distributed.init_device_mesh("cpu", (1,))
    if kind == "fully_shard":
        from torch.distributed.fsdp import fully_shard

        fully_shard(net, mesh=mesh)
        return net
    if kind == "FSDP":
        from torch.distributed.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(net, use_orig_params=True, device_id=torch.device("cpu"))
    from torch.distributed.tensor import Replicate, distribute_tensor
    from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

    if kind == "tensor parallel":
        return parallelize_module(net, mesh, {"0": ColwiseParallel()})
    for part in (net[0], net[2]):
        for name, parameter in list(part.named_parameters()):
            setattr(part, name, nn.Parameter(distribute_tensor(parameter.detach(), mesh, [Replicate()])))
    return net


@pytest.mark.usefixtures("_one_process")
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["fully_shard", "FSDP", "tensor parallel", "replicated"])
def test_sharded_networks_are_refused_and_run_afterwards(kind: str) -> None:
    if kind == "fully_shard" and torch.__version__ < (2, 7):
        pytest.skip("fully_shard does not run on a CPU before torch 2.7")
    net, x = sharded(kind), torch.randn(3, 8)
    if kind != "replicated":
        expected = net(x).detach()
    before = state(net) if kind != "FSDP" else None
    for measured in (lambda: gram_of(net, (x,), torch.ones(1, 8)), lambda: NTKOperator.of(net, (x,))):
        with pytest.raises(
            InputError,
            match=r"network: expected whole parameters on one device; got .*with a full state dict",
        ):
            measured()
    if before is not None:
        assert state(net) == before
    if kind != "replicated":
        assert torch.equal(net(x), expected)


@pytest.mark.usefixtures("_one_process")
@every_engine
def test_distributed_data_parallel_is_right(engine: str) -> None:
    net, x, v = perceptron(), normal(3, 3), normal(2, 3, 4, seed=1)
    truth = brute_gram(net, (x,), v)
    replicated = nn.parallel.DistributedDataParallel(net)
    assert relative_error(gram_by(engine, replicated, (x,), v), truth) < 1e-12
    replicated(x).sum().backward()  # the next step works
    assert net[0].weight.grad is not None

"""Denoiser: how the network is called, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ntkdiag.denoiser import Denoiser
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.schedules.base import Schedule
from ntkdiag.process.target import TARGETS, coefficients

PATHS = {
    "cosine": schedules.cosine(),
    "flow": schedules.flow(),
    "edm": schedules.edm(),
    "linear_beta": schedules.linear_beta(),
}
X = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
LEVEL = torch.tensor([-2.0, 0.0, 3.0])


class Recorder(nn.Module):
    """Returns its input times a weight and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: tuple[Any, ...] = ()

    def forward(self, *args: Any) -> Tensor:
        self.seen = args
        return args[0] * self.weight


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_by_default_the_network_sees_the_schedules_own_time(schedule: Schedule) -> None:
    network = Recorder()
    Denoiser(network, schedule, "v")(X, LEVEL)
    x, time = network.seen
    assert x is X
    torch.testing.assert_close(time, schedule.time(LEVEL))


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_log_snr_networks_see_an_input_of_unit_variance(schedule: Schedule) -> None:
    network = Recorder()
    denoiser = Denoiser(network, schedule, "v", call="log_snr")
    generator = torch.Generator().manual_seed(1)
    x0, noise = torch.randn(2, 4096, 2, generator=generator)
    denoiser(schedule.diffuse(x0, noise, 1.5), 1.5)
    x, level = network.seen
    assert level.shape == (4096,) and bool((level == 1.5).all())
    torch.testing.assert_close(x, schedules.linear_log_snr().diffuse(x0, noise, 1.5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("name", TARGETS)
def test_the_training_pair_is_the_noisy_input_and_the_target(schedule: Schedule, name: str) -> None:
    x0, noise = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    x, y = Denoiser(Recorder(), schedule, name).training_pair(x0, noise, LEVEL)
    c_x, c_epsilon = coefficients(name, schedule, LEVEL)
    for n, level in enumerate(LEVEL):
        torch.testing.assert_close(x[n], schedule.alpha(level) * x0[n] + schedule.sigma(level) * noise[n])
        torch.testing.assert_close(y[n], c_x[n] * x0[n] + c_epsilon[n] * noise[n])


def test_a_function_is_handed_everything() -> None:
    seen: list[Any] = []

    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        seen.extend((network, x, log_snr, cond))
        return 2 * x

    network = Recorder()
    denoiser = Denoiser(network, schedules.cosine(), "v", call=call)
    assert torch.equal(denoiser(X, 1.0, "a prompt"), 2 * X)
    assert seen[0] is network and seen[1] is X and seen[3] == "a prompt"
    assert torch.equal(seen[2], torch.ones(3))


@pytest.mark.parametrize("call", [None, "time", "log_snr"])
def test_conditioning_is_handed_on_only_if_there_is_some(call: str | None) -> None:
    network = Recorder()
    denoiser = Denoiser(network, schedules.cosine(), "v", call=call)
    denoiser(X, 0.0)
    assert len(network.seen) == 2
    labels = torch.zeros(3)
    denoiser(X, 0.0, labels)
    assert network.seen[2] is labels


@pytest.mark.parametrize("given", [0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.full((3,), 0.5)])
def test_one_log_snr_serves_all_samples(given: float | Tensor) -> None:
    network = Recorder()
    Denoiser(network, schedules.cosine(), "v", call="log_snr")(X, given)
    assert torch.equal(network.seen[1], torch.full((3,), 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_works_in_its_inputs_dtype(dtype: torch.dtype) -> None:
    network = Recorder()
    Denoiser(network, schedules.cosine(), "v")(X.to(dtype), LEVEL.double())
    assert [part.dtype for part in network.seen] == [dtype, dtype]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("schedule", PATHS.values(), ids=PATHS)
def test_half_precision_is_told_the_time_and_the_log_snr_in_float32(
    schedule: Schedule, dtype: torch.dtype
) -> None:
    """bfloat16 would round a log-SNR of 9.03 to 9, and step 999 to 1000."""
    level, network = torch.tensor([-4.51, 3.017, 9.03]), Recorder().to(dtype)
    for call, wanted in (("time", schedule.time(level)), ("log_snr", level)):
        Denoiser(network, schedule, "v", call=call)(X.to(dtype), level.double())
        x, seen = network.seen
        assert (x.dtype, seen.dtype) == (dtype, torch.float32)
        torch.testing.assert_close(seen, wanted, rtol=1e-6, atol=1e-6)


def scheduler(**config: Any) -> SimpleNamespace:
    return SimpleNamespace(alphas_cumprod=torch.linspace(0.99, 0.01, 10), config=config)


def test_a_target_that_the_scheduler_contradicts_is_refused() -> None:
    schedule = schedules.from_diffusers(scheduler(prediction_type="v_prediction"))
    assert Denoiser(Recorder(), schedule, "v_prediction").target == "v"
    words = r"^target: expected v, which is what networks of this scheduler predict by its prediction_type; got epsilon\."
    with pytest.raises(InputError, match=words + r" If a call function converts the output"):
        Denoiser(Recorder(), schedule, "epsilon")
    assert Denoiser(Recorder(), dataclasses.replace(schedule, predicted=()), "epsilon").target == "epsilon"
    assert Denoiser(Recorder(), schedule).target == "v"
    with pytest.raises(InputError, match=r"^target: expected one of epsilon, x0, v, .* got nothing"):
        Denoiser(Recorder(), schedules.cosine())
    for unknown in (scheduler(), scheduler(prediction_type="of another kind")):
        assert Denoiser(Recorder(), schedules.from_diffusers(unknown), "x0").target == "x0"


@pytest.mark.parametrize(
    ("sigma_data", "prediction", "fits"),
    [(0.5, "epsilon", {"F", "x0"}), (0.5, "v_prediction", {"x0"}), (1.0, "v_prediction", {"v", "x0"})],
)
def test_edm_schedulers_call_their_preconditioned_output_epsilon(
    sigma_data: float, prediction: str, fits: set[str]
) -> None:
    edm = SimpleNamespace(config={"sigma_data": sigma_data, "prediction_type": prediction})
    assert set(schedules.from_diffusers(edm).predicted) == fits


def test_a_scheduler_in_place_of_a_schedule_is_one_short_line() -> None:
    words = r"got SimpleNamespace\. Read a scheduler .* with nd\.schedules\.from_diffusers"
    with pytest.raises(InputError, match=words) as told:
        Denoiser(Recorder(), scheduler())  # type: ignore[arg-type]
    assert len(str(told.value)) < 200


@pytest.mark.parametrize("shape", [(2,), (3, 1), (4,)])
def test_another_number_of_levels_is_refused(shape: tuple[int, ...]) -> None:
    denoiser = Denoiser(Recorder(), schedules.cosine(), "v")
    with pytest.raises(InputError, match=r"^log_snr: expected one number or 3; got shape"):
        denoiser(X, torch.zeros(shape))


@pytest.mark.parametrize(
    ("returned", "got"),
    [(lambda x: x.flatten(1), r"\(3, 8\)"), (lambda x: (x, x), "tuple"), (lambda x: x[:1], r"\(1, 2, 4\)")],
)
def test_another_output_is_refused_with_the_way_out(returned: Any, got: str) -> None:
    denoiser = Denoiser(Recorder(), schedules.cosine(), "v", call=lambda network, x, *rest: returned(x))
    with pytest.raises(
        InputError, match=rf"^network output: .*\(3, 2, 4\); got {got}\. Give Denoiser a call="
    ):
        denoiser(X, 0.0)


def test_what_it_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(InputError, match=r"network: expected a torch\.nn\.Module; got function"):
        Denoiser(lambda x, t: x, schedules.cosine(), "v")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"schedule: expected a schedule such as .*; got 'cosine'"):
        Denoiser(Recorder(), "cosine", "v")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"target: expected one of epsilon.* Did you mean 'epsilon'"):
        Denoiser(Recorder(), schedules.cosine(), "epsilom")
    with pytest.raises(InputError, match="call: expected one of time, log_snr; got 'sigma'"):
        Denoiser(Recorder(), schedules.cosine(), "v", call="sigma")


def test_aliases_of_targets_are_settled() -> None:
    assert Denoiser(Recorder(), schedules.cosine(), "eps").target == "epsilon"


def test_a_copy_calls_its_own_network() -> None:
    denoiser = Denoiser(Recorder(), schedules.cosine(), "v")
    twin = copy.deepcopy(denoiser)
    with torch.no_grad():
        twin.network.weight.fill_(3.0)
    assert torch.equal(twin(X, 0.0), 3 * X) and torch.equal(denoiser(X, 0.0), X)


def test_parameters_keep_their_names_under_network() -> None:
    assert list(Denoiser(Recorder(), schedules.cosine(), "v").state_dict()) == ["network.weight"]

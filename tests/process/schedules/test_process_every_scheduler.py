"""Every scheduler class of the installed diffusers: its own noising gives the log-SNR that is read, or it is refused.

The scheduler's own `add_noise` or `scale_noise`, on ones and on zeros, gives α and σ at its own timesteps. Classes without
one are held to what their `step` noises with. The table is printed at the end of the tests.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import pkgutil
import warnings
from typing import Any

import pytest
import torch

from ntkdiag.errors import InputError
from ntkdiag.process import schedules

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    diffusers = pytest.importorskip("diffusers")
    package = importlib.import_module("diffusers.schedulers")
    Base = importlib.import_module("diffusers.schedulers.scheduling_utils").SchedulerMixin

ZERO_SNR = {"rescale_betas_zero_snr": True}
VIDEO = {
    "timestep_type": "continuous",
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "sigma_min": 0.002,
    "sigma_max": 700.0,
}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MULTISTEP_FLOW = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "CogVideoXDDIMScheduler": [ZERO_SNR],
    "DDIMScheduler": [ZERO_SNR, SD],
    "DDPMScheduler": [ZERO_SNR, SD, {"beta_schedule": "squaredcos_cap_v2"}],
    "DPMSolverMultistepScheduler": [ZERO_SNR, {"use_karras_sigmas": True}, MULTISTEP_FLOW],
    "DPMSolverSinglestepScheduler": [MULTISTEP_FLOW],
    "DEISMultistepScheduler": [MULTISTEP_FLOW],
    "SASolverScheduler": [MULTISTEP_FLOW],
    "UniPCMultistepScheduler": [ZERO_SNR, MULTISTEP_FLOW],
    "EulerDiscreteScheduler": [
        ZERO_SNR,
        ZERO_SNR | SD,
        VIDEO,
        VIDEO | {"use_karras_sigmas": False, "sigma_min": None, "sigma_max": None},
        {"use_karras_sigmas": True},
        {"timestep_spacing": "trailing"},
    ],
    "EulerAncestralDiscreteScheduler": [ZERO_SNR],
    "HeunDiscreteScheduler": [{"use_karras_sigmas": True}],
    "LMSDiscreteScheduler": [{"use_karras_sigmas": True}],
    "EDMEulerScheduler": [
        {"sigma_data": 1.0, "prediction_type": "v_prediction"},
        {"sigma_schedule": "exponential"},
    ],
    "FlowMatchEulerDiscreteScheduler": [
        {"shift": 3.0},
        {"invert_sigmas": True},
        {"num_train_timesteps": 500},
        {"use_dynamic_shifting": True},
        {"use_karras_sigmas": True},
    ],
    "FlowMatchHeunDiscreteScheduler": [{"shift": 3.0}],
}
# Arguments without a default.
NEEDED: dict[str, dict[str, Any]] = {
    "AmusedScheduler": {"mask_token_id": 5},
    "VQDiffusionScheduler": {"num_vec_classes": 7},
}
STEPPED: dict[str, dict[str, Any]] = {
    "ConsistencyDecoderScheduler": {"num_inference_steps": 2},
    "FlowMatchEulerDiscreteScheduler use_dynamic_shifting": {"num_inference_steps": 20, "mu": 1.1},
    "HeliosScheduler": {"num_inference_steps": 20, "stage_index": 0},
    "HeliosDMDScheduler": {"num_inference_steps": 20, "stage_index": 0},
    "SCMScheduler": {"num_inference_steps": 20, "intermediate_timesteps": None},
}
# Nothing to read: tokens, a decoder's own two steps, betas without ᾱ, other functions of time. One line each.
REFUSED = {
    "AmusedScheduler", "BlockRefinementScheduler", "CosineDPMSolverMultistepScheduler", "DDPMWuerstchenScheduler",
    "DiscreteDDIMScheduler", "EntropyBoundScheduler", "IPNDMScheduler", "KarrasVeScheduler",
    "MiniMaxH3Scheduler", "RFD4ProteinaScheduler", "ScoreSdeVeScheduler", "ScoreSdeVpScheduler", "VQDiffusionScheduler",
}  # fmt: skip
# Before they have sigmas; and once each stage of a pyramid has noise levels of its own.
REFUSED_IN_STATE = {
    ("LTXEulerAncestralRFScheduler", "made"), ("PiflowScheduler", "made"),
    ("HeliosScheduler", "stepped"), ("HeliosDMDScheduler", "stepped"),
}  # fmt: skip


def scheduler_classes() -> tuple[dict[str, type], dict[str, str]]:
    """Classes by name, and modules that cannot be imported with the reason."""
    found: dict[str, type] = {}
    missing: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        deprecated = importlib.import_module("diffusers.schedulers.deprecated")
        for home in (package, deprecated):
            for info in pkgutil.iter_modules(home.__path__):
                try:
                    module = importlib.import_module(f"{home.__name__}.{info.name}")
                except ImportError as error:
                    missing[info.name] = str(error)
                    continue
                for name, item in vars(module).items():
                    own = inspect.isclass(item) and item.__module__ == module.__name__
                    if own and issubclass(item, Base) and item is not Base:
                        found[name] = item
    return found, missing


CLASSES, MISSING = scheduler_classes()
CASES = [
    (name, options, state)
    for name in sorted(CLASSES)
    for options in [{}, *OPTIONS.get(name, [])]
    for state in ("made", "stepped")
]


def described(options: dict[str, Any]) -> str:
    return " ".join(key if value is True else f"{key}={value}" for key, value in options.items())


def made(name: str, options: dict[str, Any], state: str) -> Any:
    """The scheduler as its constructor or `set_timesteps` leaves it; None if it cannot be made so."""
    quiet = diffusers.utils.logging
    quiet.set_verbosity_error()
    try:
        scheduler = CLASSES[name](**NEEDED.get(name, {}), **options)
        if state == "stepped":
            given = STEPPED.get(f"{name} {described(options)}") or STEPPED.get(
                name, {"num_inference_steps": 20}
            )
            scheduler.set_timesteps(**given)
    except (TypeError, AttributeError, ValueError):
        return None
    return scheduler


def own_levels(scheduler: Any, times: torch.Tensor) -> list[float]:
    """Log-SNR of the scheduler's own noising at its own timesteps."""
    return [own_level(copy.deepcopy(scheduler), times[i : i + 1]) for i in range(len(times))]


def own_level(scheduler: Any, time: torch.Tensor) -> float:
    def noised(x0: float, noise: float) -> float:
        again, clean = copy.deepcopy(scheduler), torch.full((1, 1, 1, 1, 1), x0, dtype=torch.float64)
        return noise_of(again, clean, torch.full_like(clean, noise), time)

    alpha, sigma = noised(1.0, 0.0), noised(0.0, 1.0)
    return 2 * (math.log(alpha) if alpha > 0 else -math.inf) - 2 * (
        math.log(sigma) if sigma > 0 else -math.inf
    )


def noise_of(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor, time: torch.Tensor) -> float:
    """Its own noising; for classes without one, the α and σ that its `step` uses."""
    if type(scheduler).__name__ == "SASolverScheduler" and scheduler.config.use_flow_sigmas:
        # Its add_noise knows nothing of flow; its step does.
        sigma = scheduler.sigmas[(scheduler.timesteps == time).nonzero()[0]].double()
        return float((1 - sigma) * clean.flatten() + sigma * noise.flatten())
    if hasattr(scheduler, "scale_noise"):
        return float(scheduler.scale_noise(clean, time, noise))
    try:
        if "sigmas" in inspect.signature(scheduler.add_noise).parameters:
            return float(scheduler.add_noise(clean, noise, time, scheduler.sigmas, scheduler.timesteps))
        return float(scheduler.add_noise(clean, noise, time))
    except (AttributeError, NotImplementedError):
        pass
    if scheduler.config.get("prediction_type") == "trigflow":
        alpha, sigma = time.double().cos(), time.double().sin()
    elif hasattr(scheduler, "sqrt_alphas_cumprod"):
        step = time.long()
        alpha = scheduler.sqrt_alphas_cumprod[step].double()
        sigma = scheduler.sqrt_one_minus_alphas_cumprod[step].double()
    elif getattr(scheduler, "alphas_cumprod", None) is not None:
        alpha_bar = scheduler.alphas_cumprod[time.long()].double()
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    else:
        sigma = scheduler.sigmas[(scheduler.timesteps == time).nonzero()[0]].double()
        alpha = 1 - sigma
    return float(alpha * clean.flatten() + sigma * noise.flatten())


def three_times(scheduler: Any) -> torch.Tensor:
    """First, middle and last timestep. In the second-order solvers of KDPM2 the odd ones noise as their neighbours do."""
    times = scheduler.timesteps
    middle = len(times) // 2
    if type(scheduler).__name__ in ("KDPM2DiscreteScheduler", "DPMSolverSDEScheduler"):
        middle -= middle % 2
    return times[[0, middle, len(times) - 1]]


def noises_backwards(scheduler: Any) -> bool:
    """Multistep solvers keep sigmas upwards beside timesteps downwards until `set_timesteps` is called."""
    times, sigmas = scheduler.timesteps, getattr(scheduler, "sigmas", None)
    if sigmas is None or len(sigmas) < 2:
        return False
    return bool((times[-1] - times[0]) * (sigmas[-1] - sigmas[0]) < 0)


def tolerance(scheduler: Any, ours: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Rounding of float32; and of multistep solvers, the whole number that a timestep between two was cut or rounded to."""
    allowed = 2e-5 * (1 + ours.abs()) + 2e-5
    if scheduler.config.get("use_flow_sigmas") or scheduler.config.get("use_karras_sigmas"):
        last = schedules.from_diffusers(scheduler).time_range[1]
        if not (times == times.round()).all() or last < 100:
            return allowed
        above = schedules.log_snr_of_timesteps(scheduler, (times.double() + 1).clamp(max=last))
        return allowed + (ours - above).abs()
    if (times != times.round()).any() and getattr(scheduler, "alphas_cumprod", None) is not None:
        return allowed + 1e-3  # between steps σ may be interpolated where ours is log-SNR
    return allowed


@pytest.mark.parametrize(
    ("name", "options", "state"), CASES, ids=[f"{n}-{described(o) or 'default'}-{s}" for n, o, s in CASES]
)
def test_log_snr_is_that_of_the_schedulers_own_noising(
    name: str, options: dict[str, Any], state: str, record_property: Any
) -> None:
    scheduler = made(name, options, state)
    row = [name, described(options), state]
    if scheduler is None:
        record_property("scheduler", [*row, "cannot be made so", ""])
        return
    try:
        schedule = schedules.from_diffusers(scheduler)
    except InputError as error:
        assert name in REFUSED or (name, state) in REFUSED_IN_STATE
        assert "\n" not in str(error) and type(scheduler).__name__ in str(error)
        record_property("scheduler", [*row, f"refused: {error}"[:100], ""])
        return
    assert name not in REFUSED and (name, state) not in REFUSED_IN_STATE
    if getattr(scheduler, "timesteps", None) is None:
        record_property("scheduler", [*row, "no timesteps yet", repr(schedule)])
        return
    if noises_backwards(scheduler):
        record_property("scheduler", [*row, "noises backwards until set_timesteps", repr(schedule)])
        return
    times = three_times(scheduler)
    if not (schedule.whole_times or times.is_floating_point()):
        with pytest.raises(InputError, match="floating-point times"):
            schedules.log_snr_of_timesteps(scheduler, times)
        record_property("scheduler", [*row, "whole timesteps refused until set_timesteps", repr(schedule)])
        return
    own, ours = own_levels(scheduler, times), schedules.log_snr_of_timesteps(scheduler, times)
    read = schedule.log_snr(times.double())
    record_property("scheduler", [*row, own, ours.tolist()])
    assert torch.equal(read, ours)
    for theirs, found, within in zip(own, ours, tolerance(scheduler, ours.nan_to_num(), times), strict=True):
        assert found.item() == theirs or abs(found.item() - theirs) <= within


def test_what_is_refused_is_refused_and_what_cannot_be_imported_is_said(record_property: Any) -> None:
    assert set(CLASSES) | {"CosineDPMSolverMultistepScheduler"} >= REFUSED - {"RFD4ProteinaScheduler"}
    for module, reason in MISSING.items():
        record_property("scheduler", [module, "", "", f"not imported: {reason}", ""])


def test_the_levels_that_were_once_misread() -> None:
    def at(name: str, time: float, **options: Any) -> float:
        scheduler = CLASSES[name](**options)
        return schedules.log_snr_of_timesteps(scheduler, torch.tensor([time])).item()

    assert at("CMStochasticIterativeScheduler", 201.66804) == pytest.approx(-1.6133, abs=1e-4)
    assert at("SCMScheduler", math.pi / 4) == pytest.approx(0.0, abs=1e-6)
    assert at("EulerDiscreteScheduler", math.log(700) / 4, **VIDEO) == pytest.approx(
        -2 * math.log(700), abs=1e-5
    )
    assert at("EulerDiscreteScheduler", 999, **ZERO_SNR) == pytest.approx(-16.6355, abs=1e-4)
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        with pytest.raises(InputError, match=r"floating-point times .* since it has no whole steps"):
            schedules.log_snr_of_timesteps(CLASSES[name](), torch.tensor([500]))
        with pytest.raises(InputError, match="times from"):
            at(name, 500.0)

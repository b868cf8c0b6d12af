"""What a run would cost: parameters, samples, floating-point operations and time, before anything is trained."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ntkdiag.data import as_data
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.errors import InputError
from ntkdiag.modes import in_mode
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.loss import Generators, Labelled, denoising_losses, draw_batch

# A step is timed as a whole where it should take less than this, in seconds; else these many samples of it are. Tuned here.
_PATIENCE, _FEW = 5.0, 8
_REPEATS = 3


@dataclass(frozen=True)
class Cost:
    """What a run would cost.

    Attributes:
        parameters: Numbers that are trained.
        samples: Samples drawn in all steps together.
        passes: The same, in units of the training data.
        flops: Floating-point operations of the forward and backward of all samples; a multiply-add is two.
        seconds: Time of these on this device, without optimizer, evaluation or refreshed weights.

    Example:
        >>> nd.train.Cost(parameters=1138, samples=800, passes=0.2, flops=5e6, seconds=0.1).samples
        800
    """

    parameters: int
    samples: int
    passes: float
    flops: float
    seconds: float


def training_cost(denoiser: Denoiser, data: DataLike, config: TrainConfig) -> Cost:
    """Measure what a run would cost: a few forwards and backwards, after which the network is as it was.

    Args:
        denoiser: The network, on the device to train on.
        data: As `train` takes it.
        config: Settings.

    Raises:
        InputError: a network without parameters to train, or conditions that the data lacks.

    Example:
        >>> network = nd.models.build("mlp", (2,), width=16, depth=1)
        >>> denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
        >>> cost = nd.train.training_cost(denoiser, nd.data.load("mixture"), nd.train.TrainConfig(steps=100, batch=8))
        >>> cost.parameters, cost.samples
        (1138, 800)
    """
    require_denoiser("network to train", denoiser)
    data = as_data(data)
    trained = [p for p in denoiser.network.parameters() if p.requires_grad]
    if not trained:
        raise InputError("network", expected="at least one parameter that requires grad", got="none")
    place = trained[0]
    samples = data.train[: config.batch].to(place)
    labelled = Labelled.of(denoiser, data, place, dropout=0.0)
    made = Generators(*(torch.Generator(place.device).manual_seed(config.seed) for _ in range(3)))

    def seconds(count: int) -> float:
        started = time.perf_counter()
        batch = draw_batch(samples, denoiser.schedule, count, made, labelled)
        gradients = torch.autograd.grad(denoising_losses(denoiser, batch).mean(), trained, allow_unused=True)
        [one.sum().item() for one in gradients if one is not None]  # waits for the device
        return time.perf_counter() - started

    drawn = config.steps * config.batch
    with in_mode(denoiser, training=True):
        seconds(1)  # takes longer: the first call prepares
        with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
            seconds(1)
        few = min(config.batch, _FEW)
        step = config.batch / few * min(seconds(few) for _ in range(2))  # the first of a size prepares too
        if step < _PATIENCE:
            step = min(seconds(config.batch) for _ in range(_REPEATS))
    return Cost(
        sum(p.numel() for p in trained),
        drawn,
        drawn / len(data.train),
        float(counted.get_total_flops()) * drawn,
        step * config.steps,
    )

"""Training goes on for a few real steps, on a copy of the network and of its optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ntkdiag.conditions import placed
from ntkdiag.data import Data
from ntkdiag.errors import MeasurementError
from ntkdiag.modes import in_mode
from ntkdiag.randomness import stream_seed
from ntkdiag.train.alignment.aligner import losses_beside
from ntkdiag.train.loss import Batch, Generators, Labelled, draw_batch
from ntkdiag.trust.optimizers import Start

# From log-SNR [N] to loss weights [N].
Weights = Callable[[Tensor], Tensor]


class Batches:
    """Training batches of a stream of their own."""

    def __init__(self, start: Start, data: Data, seed: int, stream: str) -> None:
        place = next(start.denoiser.parameters())
        device = place.device
        made = [torch.Generator(device).manual_seed(stream_seed(seed, f"{stream} {k}")) for k in range(3)]
        self._generators = Generators(*made)
        self._samples = data.train.to(place)
        cond = placed(start.denoiser.conditions_from(data.conditions), place)
        self._labelled = Labelled(cond, {}, 0.0) if cond else None
        self._start = start

    def draw(self) -> Batch:
        """The next batch."""
        schedule, count = self._start.denoiser.schedule, self._start.batch
        return draw_batch(self._samples, schedule, count, self._generators, self._labelled)


def displacements(
    start: Start, data: Data, weights: Weights | None, steps: int, seed: int, repeat: int
) -> Iterator[tuple[Tensor, ...]]:
    """θ_t − θ_0 after each real step t = 1 … steps.

    Args:
        start: Left as it is.
        data: What is trained on.
        weights: Loss weights; None for 1.
        steps: Number of steps.
        seed, repeat: Stream of the batches; repeats have unrelated ones.

    Yields:
        A tensor of the shape of each trained parameter, in their order.

    Raises:
        MeasurementError: the weights are no longer finite.
    """
    state = start.copy()
    batches = Batches(state, data, seed, f"repeat {repeat}")
    trained = [p for p in state.denoiser.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    cuda = [trained[0].device] if trained[0].device.type == "cuda" else []
    for done in range(steps):
        with torch.random.fork_rng(devices=cuda), in_mode(state.denoiser, training=True):
            torch.manual_seed(stream_seed(seed, f"dropout {repeat} {done}"))
            _step(state, batches.draw(), weights, done)
        moved = tuple(p.detach() - old for p, old in zip(trained, before, strict=True))
        if not all(bool(part.isfinite().all()) for part in moved):
            raise MeasurementError(
                f"real steps: expected finite weights; got NaN or infinity at step {done + 1}. "
                "Lower the learning rate."
            )
        yield moved


def _step(state: Start, batch: Batch, weights: Weights | None, done: int) -> None:
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] if state.rate is None else state.rate(done)
    with torch.enable_grad():
        weighted_loss(state, batch, weights).backward()
    torch.nn.utils.clip_grad_norm_([p for p in state.learned if p.grad is not None], state.clip)
    for optimizer in state.optimizers:
        optimizer.step()


def weighted_loss(state: Start, batch: Batch, weights: Weights | None) -> Tensor:
    """The loss that training lowers, as the trainer computes it."""
    aligner, share = state.aligner
    losses, *alignment = losses_beside(aligner, state.denoiser, batch)
    weight = 1.0 if weights is None else weights(batch.log_snr).detach()
    return (weight * losses).mean() + sum(share * one for one in alignment)


def mean_gradient(
    start: Start, data: Data, weights: Weights | None, batches: int, seed: int
) -> tuple[Tensor, ...]:
    """The gradient of the training loss over several batches, by trained parameter in their order."""
    state = start.copy()
    source = Batches(state, data, seed, "gradient")
    trained = [p for p in state.denoiser.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in trained]
    with torch.enable_grad(), in_mode(state.denoiser, training=False):
        for _ in range(batches):
            loss = weighted_loss(state, source.draw(), weights)
            found = torch.autograd.grad(loss, trained, materialize_grads=True)
            total = [sum_ + new / batches for sum_, new in zip(total, found, strict=True)]
    return tuple(total)

"""The losses and the gradient of one step: in parts, in mixed precision, by one process or by several that share the batch.

Every process draws the whole batch from generators of the same seeds, and passes its own rows through the network; so the
number of processes changes no draw. Gradients are added up here, after the backward, and not within it as torch's
DistributedDataParallel does: an error in one process can then be told to the others before they wait for it, the batch need
not be divisible by the number of processes, and parameters without a gradient and compiled networks need no care.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ntkdiag.data import Data
from ntkdiag.distributed import Processes
from ntkdiag.distributed.alike import of_weights, require_alike
from ntkdiag.distributed.in_place import add_up, take_from_first
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.train.alignment.aligner import losses_beside
from ntkdiag.train.config import TrainConfig
from ntkdiag.train.loss import Batch
from ntkdiag.train.own_draws import own_draws
from ntkdiag.train.state import TrainState


class StepLosses(NamedTuple):
    """The losses of a step, of the whole batch in every process.

    Attributes:
        each: Unweighted losses [N].
        alignment: The alignment loss, where features are aligned.
    """

    each: Tensor
    alignment: tuple[Tensor, ...]


class StepGradient:
    """Computes the losses of a step, and leaves its gradient in the parameters.

    Args:
        state: Of the run.
        processes: Those that share the batch; None for this one alone.

    Attributes:
        first: Whether this process is the one that writes.

    Raises:
        InputError: a batch of fewer samples than processes, or a network whose gradients torch would add up too.
    """

    def __init__(self, state: TrainState, processes: Processes | None) -> None:
        self.state, self.processes = state, processes
        self.first = processes is None or processes.rank == 0
        self._rank = 0 if processes is None else processes.rank
        self._asked = False
        if processes is not None:
            _require_shareable(state, processes)

    def require_alike(self, data: Data) -> None:
        """Refuse to train where processes have been given different things; one process alone reads no data for this.

        Raises:
            InputError: their weights, settings, data or buckets differ.
        """
        if self.processes is None:
            return
        facts: dict[str, int | str] = {
            "weights": of_weights(self.state.tensors()),
            "settings": str(self.state.config),
            "data": data.digest,
            "buckets": str(self.state.meter.buckets.edges),
        }
        require_alike(self.processes, facts)

    def __call__(self, batch: Batch, weight: Tensor | None, interrupted: Callable[[], bool]) -> StepLosses:
        """Losses, and the gradient of their weighted mean plus what `align` asks for.

        Args:
            batch: Of all processes, [N, ...].
            weight: Of each loss [N]; None for 1.
            interrupted: Whether the run is to stop after this step, in this process.

        Raises:
            MeasurementError: the loss depends on no parameter.
        """
        state, count = self.state, len(batch.log_snr)
        state.clear_gradients()
        losses, alignment = [], []
        with own_draws(state.config.seed, state.step, state.device, self._rank):
            for rows in self._parts(count):
                part = batch if rows == slice(0, count) else batch.rows(rows)
                with _autocast(state.config, state.device):
                    each, *beside = losses_beside(state.aligner, state.denoiser, part)
                share = len(each) / count
                loss = (each if weight is None else weight[rows] * each).sum() / count
                loss = loss + sum(state.config.align * share * one for one in beside)
                if loss.requires_grad:  # not where these samples use no parameter
                    loss.backward()
                losses.append(each.detach())
                alignment += [share * one.detach() for one in beside]
        own = losses[0] if len(losses) == 1 else torch.cat(losses)
        total = (torch.stack(alignment).sum(),) if alignment else ()
        found = self._of_all(own, total, count, interrupted)
        if all(parameter.grad is None for parameter in state.learned.values()):
            raise MeasurementError(
                f"training: expected a loss that depends on the parameters; got none that does at step {state.step + 1}. "
                "See whether the network detaches its output, or computes it under torch.no_grad."
            )
        return found

    def stop(self, interrupted: Callable[[], bool]) -> bool:
        """Whether the run is to stop now: in several processes, what any of them said in the last step."""
        return interrupted() if self.processes is None else self._asked

    def _own(self, count: int) -> slice:
        return slice(0, count) if self.processes is None else self.processes.share_of(count)

    def _parts(self, count: int) -> Iterator[slice]:
        """The rows of this process, in as many parts as the settings say."""
        own = self._own(count)
        size, parts = own.stop - own.start, self.state.config.accumulate
        for i in range(parts):
            rows = slice(own.start + i * size // parts, own.start + (i + 1) * size // parts)
            if rows.stop > rows.start:
                yield rows

    def _of_all(
        self, own: Tensor, alignment: tuple[Tensor, ...], count: int, interrupted: Callable[[], bool]
    ) -> StepLosses:
        """Add up what processes have, so that each has all of it."""
        if self.processes is None:
            return StepLosses(own, alignment)
        gradients = self._gradients(self.processes, interrupted)
        every = own.new_zeros(count)
        every[self._own(count)] = own
        add_up(self.processes, "losses and gradients", [every, *alignment, *gradients])
        buffers = list(self.state.denoiser.network.buffers())
        if buffers:
            take_from_first(self.processes, "buffers", buffers)
        return StepLosses(every, alignment)

    def _gradients(self, processes: Processes, interrupted: Callable[[], bool]) -> list[Tensor]:
        """Gradients of the same parameters in all processes: zero where another alone has one."""
        parameters = list(self.state.learned.values())
        used = [parameter.grad is not None for parameter in parameters]
        seen = processes.meet("step", crc32(bytes(used)), int(interrupted()))
        self._asked = any(asked for _, asked in seen)
        if len({which for which, _ in seen}) > 1:
            somewhere = zip(*processes.each_says("parameters with a gradient", used), strict=True)
            for parameter, flags in zip(parameters, somewhere, strict=True):
                if any(flags) and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    if config.mixed_precision == "no":
        return nullcontext()  # leaves a caller's own autocast as it is
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _require_shareable(state: TrainState, processes: Processes) -> None:
    if state.config.batch < processes.count:
        raise InputError(
            "batch",
            expected=f"at least one sample for each of {processes.count} processes",
            got=state.config.batch,
        )
    if any(isinstance(part, DistributedDataParallel) for part in state.denoiser.modules()):
        raise InputError(
            "network",
            expected="the bare network, whose gradients the trainer adds up over processes",
            got="one in a DistributedDataParallel, which does so too",
            fix="Pass its .module.",
        )
    if any(hasattr(parameter, "full_tensor") for parameter in state.learned.values()):
        raise InputError(
            "network",
            expected="a network that every process has as a whole",
            got="parameters sharded over processes",
        )

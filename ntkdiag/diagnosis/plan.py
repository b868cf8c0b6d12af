"""What a measurement costs before it runs: operations, bytes exchanged, memory and seconds of each of several processes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from ntkdiag.conditions import rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.bucket_kernels import samples_together
from ntkdiag.errors import InputError
from ntkdiag.kernel.engines import SKETCH
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.kernel.work import RATES, Kernel, Sweeps, Timed, Work, shape_of, speed_of, timed, work_of

# Samples of a training step, as the unit of cost.
BATCH = 128
_FEW = 8


@dataclass(frozen=True)
class Plan:
    """What each process does.

    Attributes:
        table: A row for each part of the measurement of all networks: part, operations, training_steps (of 128 samples),
            received_bytes, memory_bytes and seconds, each of one process; seconds of a core, NaN for a card.
        left_out: Parameters that only the slow engines serve; they are not counted.
        processes: How many share the samples.
    """

    table: pd.DataFrame
    left_out: tuple[str, ...]
    processes: int

    @property
    def whole(self) -> dict[str, float]:
        """The sum over parts; of memory, the peak."""
        sums = {
            name: float(self.table[name].sum(skipna=False)) for name in self.table.columns if name != "part"
        }
        return sums | {"memory_bytes": float(self.table["memory_bytes"].max())}


def plan(
    denoiser: Denoiser,
    data: Data,
    buckets: int,
    *,
    samples: int = 64,
    probes: int = 8,
    engine: str = "auto",
    sketch: int = SKETCH,
    params: str | Sequence[str] | None = None,
    processes: int = 1,
    networks: int = 1,
    memory: int | None = None,
) -> Plan:
    """Count what `measure` would do with these arguments, without the full kernel, and time a little of it here.

    The network runs on a few samples, alone and through the engine, and a part of each layer's products between samples is
    made: about a second, unless one pass of a sample takes as long. Seconds are those of a core: what was timed times what
    is counted, and bytes exchanged at a rate that `analysis/processes` fits; its README says how well it does.

    Args:
        denoiser, data, samples, probes, sketch, params: As in `measure`.
        buckets: Their number B.
        engine: "auto", "streaming" (both exact) or "sketch". With "auto" the trace kernel is sketched where `measure` would.
        processes: How many share the samples.
        networks: How many are measured, references included.
        memory: Bytes that each process has to work in; None for what is free on this machine, which they are taken to share.

    Raises:
        InputError: an engine whose cost is not known.

    Example:
        >>> denoiser = nd.Denoiser(nd.models.build("mlp", (2,), width=8), nd.schedules.cosine(), "v", call="log_snr")
        >>> one, two = (plan(denoiser, nd.data.load("mixture"), 4, processes=n).whole for n in (1, 2))
        >>> two["operations"] < one["operations"]
        True
    """
    if engine in ("exact", "autograd"):
        raise InputError(
            "engine", expected="'auto', 'streaming' or 'sketch', whose cost is known", got=repr(engine)
        )
    inputs = _inputs(denoiser, data)
    shape = shape_of(denoiser, inputs, within_denoiser(params), sketch)
    every = buckets * samples
    most = samples_together(buckets, samples, probes, int(shape.forward))
    base = Kernel(every, probes, processes, engine == "sketch", memory=memory, device=inputs[0].device)
    many = replace(base, sketched=base.sketched or (engine == "auto" and Sweeps.of(shape, base).count > 1))
    traces = [many] if every <= most else [replace(base, samples=samples)] * buckets
    if every > most:
        traces.append(replace(base, samples=buckets * max(1, most // buckets)))
    kernels = {
        "residual kernel": [replace(base, probes=1)],
        "trace kernel": _once_checked(traces),
        "noise of the target": _once_checked([replace(base, samples=samples, probes=1)] * buckets),
    }
    known = {
        name: [replace(each, rehearsed=name == "residual kernel") for each in some]
        for name, some in kernels.items()
    }
    kinds = {each.sketched for some in known.values() for each in some}
    speeds = {
        kind: speed_of(denoiser, inputs, replace(base, sketched=kind), within_denoiser(params), sketch)
        for kind in kinds
        if base.device.type == "cpu"  # of a card, seconds of a core say nothing
    }

    def of(some: list[Kernel], repeats: int) -> tuple[Work, Timed]:
        found = Counter(some)
        work = [work_of(shape, each) for each in some] * repeats
        if not speeds:
            return sum(work, start=Work()), Timed(passes=math.nan)
        seconds = [
            timed(shape, speeds[each.sketched], each).times(count * repeats) for each, count in found.items()
        ]
        return sum(work, start=Work()), sum(seconds, start=Timed())

    passes = every / processes
    one_pass = max((speed.forward_sample for speed in speeds.values()), default=math.nan)
    parts = {"predictions": (Work(passes=passes * networks), Timed(passes=passes * one_pass * networks))}
    parts |= {
        name: of(some, 1 if name == "noise of the target" else networks) for name, some in known.items()
    }
    step = 3 * BATCH * shape.forward
    table = [
        {
            "part": part,
            "operations": work.operations(shape.forward),
            "training_steps": work.operations(shape.forward) / step if step else 0.0,
            "received_bytes": work.received,
            "memory_bytes": shape.weights + work.memory,
            "seconds": RATES.seconds(seconds),
        }
        for part, (work, seconds) in parts.items()
    ]
    return Plan(pd.DataFrame(table), shape.left_out, processes)


def _inputs(denoiser: Denoiser, data: Data) -> tuple[Tensor, ...]:
    """What the network takes of a few samples at a noise level in the middle."""
    rows = torch.arange(min(_FEW, len(data.train)))
    like = next(denoiser.parameters())
    x = data.train[rows].to(like)
    cond = rows_of(denoiser.conditions_from(data.conditions), rows)
    level = torch.full((len(x),), float(denoiser.schedule.quantile(0.5)), device=like.device)
    return denoiser.inputs(x, level, dict(cond) or None)


def _once_checked(kernels: list[Kernel]) -> list[Kernel]:
    """The first of them compared with plain autograd, as `CheckOnce` does."""
    return [replace(each, checked=place == 0) for place, each in enumerate(kernels)]

"""What a measurement costs before it runs: operations, bytes exchanged, memory and seconds of each of several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from ntkdiag.conditions import rows_of
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis.bucket_kernels import samples_together
from ntkdiag.errors import InputError
from ntkdiag.kernel.engines import SKETCH
from ntkdiag.kernel.gram import within_denoiser
from ntkdiag.kernel.work import RATES, Work, gemm_rate, pass_seconds, shape_of, work_of

# Samples of a training step, as the unit of cost.
BATCH = 128
_FEW = 8


@dataclass(frozen=True)
class Plan:
    """What each process does.

    Attributes:
        table: A row for each part of the measurement of all networks: part, operations, training_steps (of 128 samples),
            received_bytes, memory_bytes and seconds, each of one process.
        left_out: Parameters that only the slow engines serve; they are not counted.
        processes: How many share the samples.
    """

    table: pd.DataFrame
    left_out: tuple[str, ...]
    processes: int

    @property
    def whole(self) -> dict[str, float]:
        """The sum over parts; of memory, the peak."""
        sums = {name: float(self.table[name].sum()) for name in self.table.columns if name != "part"}
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
) -> Plan:
    """Count what `measure` would do with these arguments, without the full kernel.

    The network runs on a few samples, to see its layers and how fast it is here. Seconds are those of a core: what is
    counted times rates that `analysis/processes` fits, whose README says how well. All samples of a kernel are taken to fit
    into memory at once.

    Args:
        denoiser, data, samples, probes, sketch, params: As in `measure`.
        buckets: Their number B.
        engine: "auto", "streaming" (both exact) or "sketch".
        processes: How many share the samples.
        networks: How many are measured, references included.

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
    rows = torch.arange(min(_FEW, len(data.train)))
    like = next(denoiser.parameters())
    x = data.train[rows].to(like)
    cond = rows_of(denoiser.conditions_from(data.conditions), rows)
    level = torch.full((len(x),), float(denoiser.schedule.quantile(0.5)), device=like.device)
    inputs = denoiser.inputs(x, level, dict(cond) or None)
    shape = shape_of(denoiser, inputs, within_denoiser(params), sketch)
    every = buckets * samples
    most = samples_together(buckets, samples, probes, int(shape.forward))

    def kernel(count: int, directions: int) -> Work:
        return work_of(shape, count, directions, processes, engine == "sketch")

    def times(count: int, work: Work) -> Work:
        return sum([work] * (count - 1), start=work)

    trace = kernel(every, probes)
    if every > most:
        trace = times(buckets, kernel(samples, probes)) + kernel(buckets * max(1, most // buckets), probes)
    forwards = Work(passes=every / processes, memory=float(shape.weights))
    parts = {
        "predictions": times(networks, forwards),
        "residual kernel": times(networks, kernel(every, 1)),
        "trace kernel": times(networks, trace),
        "noise of the target": times(buckets, kernel(samples, 1)),
    }
    one_pass, rate = pass_seconds(denoiser, inputs), gemm_rate()
    step = 3 * BATCH * shape.forward
    table = [
        {
            "part": part,
            "operations": work.operations(shape.forward),
            "training_steps": work.operations(shape.forward) / step if step else 0.0,
            "received_bytes": work.received,
            "memory_bytes": work.memory,
            "seconds": RATES.seconds(work, one_pass, rate),
        }
        for part, work in parts.items()
    ]
    return Plan(pd.DataFrame(table), shape.left_out, processes)

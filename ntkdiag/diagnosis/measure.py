"""`measure`: kernels, spectra and recoverability of a network per log-SNR bucket, as a `Diagnosis`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ntkdiag import provenance
from ntkdiag.conditions import described
from ntkdiag.data import Data, as_data, in_memory
from ntkdiag.data.dataset import MANY
from ntkdiag.data.given import DataLike
from ntkdiag.denoiser import Denoiser, require_denoiser
from ntkdiag.diagnosis.bayes import BayesTruth, bayes_truth, bound_candidates, finite_optimal, knows_optimum
from ntkdiag.diagnosis.bucket_kernels import (
    Kernels,
    gradient_energy,
    measure_kernels,
    samples_together,
    work_of_kernels,
)
from ntkdiag.diagnosis.controls import shown_references
from ntkdiag.diagnosis.full_kernel import FullKernel, FullSettings, measure_full, work_of_full
from ntkdiag.diagnosis.measurement_key import measurement_key
from ntkdiag.diagnosis.outputs import FINITE, SOURCE, output_grams
from ntkdiag.diagnosis.preconditions import (
    require_comparable,
    require_forward,
    require_full,
    require_references,
)
from ntkdiag.diagnosis.result import LABELS, Diagnosis
from ntkdiag.diagnosis.shared_parts import SharedParts
from ntkdiag.diagnosis.steps import DIRECTION, Steps
from ntkdiag.diagnosis.tables import (
    BucketViews,
    coupling_table,
    learnability_scale,
    rarefaction_table,
    spectra_table,
    summary_table,
)
from ntkdiag.diagnosis.work import forward_operations
from ntkdiag.diagnosis.zero_start import zero_last_layer
from ntkdiag.distributed import Processes, in_step
from ntkdiag.errors import require_path, require_positive_int
from ntkdiag.kernel import CheckOnce
from ntkdiag.kernel.engines import SKETCH
from ntkdiag.kernel.parameters import pattern_list
from ntkdiag.kernel.sharded import gathered, gathered_whole, tensors_of, with_values
from ntkdiag.modes import measuring
from ntkdiag.process.buckets import DEFAULT_COUNT, Buckets, BucketsLike
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.progress import Progress, reporting


def measure(
    denoiser: Denoiser,
    data: DataLike,
    buckets: BucketsLike = DEFAULT_COUNT,
    *,
    samples: int = 64,
    probes: int = 8,
    seed: int = 0,
    refs: dict[str, Denoiser] | None = None,
    engine: str = "auto",
    params: str | Sequence[str] | None = None,
    memory: int | None = None,
    name: str = "trained",
    full: FullSettings | None = None,
    held_out_unseen: bool = False,
    progress: Progress | bool | None = None,
    check: bool = True,
    extrapolate: bool = False,
    sketch: int = SKETCH,
    resume: Path | str | provenance.KeptParts | None = None,
    distributed: bool = False,
) -> Diagnosis:
    """Measure a network's kernel, spectrum and recoverability per log-SNR bucket.

    The same data and noise are used in every bucket (at its centre) and for every reference network, so
    differences are formed within pairs. Kernels are those of the network's own target; `trace_x0` gives the
    x0-equivalent trace, K_x0 = K_y / k_y².

    Args:
        denoiser: The network.
        data: Samples are drawn from its training part without replacement: `Data`, or what `nd.data.as_data` takes, such as
            a tensor, an array, a Dataset, a DataLoader or a path. What the network takes as conditions comes from it: each
            sample keeps its own over all buckets. `data.at_condition(label=1000)` measures at the null label instead.
        buckets: Log-SNR buckets: `Buckets`, a count over the range in which the schedule trains (all but the outermost 0.1%
            on either side), or edges.
        samples: N per bucket; compare diagnoses only at equal N, since ranks grow with it.
        probes: R random ±1 probes of the trace kernel; with 3 or more, intervals include the spread over probes.
        seed: Seed from which the separate streams of data, noise and probes are derived.
        refs: Reference networks by name, of the same target and schedule, measured on the same draws; "untrained",
            "untrained 2", … are the controls that claims use (`ntkdiag.diagnosis.fresh_controls` makes them).
        engine, params, memory: As in `gram`; for the trace and residual kernels.
        check: Compare the engine with plain autograd, once for each network and kind of direction; see `gram_of`.
        name: Name of the network in progress messages.
        full: Settings of the full kernel, which has a row for every output of every sample; None omits it. It is
            measured for the network and every reference but the second and further controls, and costs some hundred
            products a bucket for each (one product is a forward and a backward pass over the samples).
        held_out_unseen: The networks were not trained on `data.held_out`, so that their own loss there bounds the loss
            that no training removes; used where the data has no oracle.
        progress: Called with (description of the work, work done, work in total), of all networks and noise levels together.
            By default a bar on a terminal and a line in a notebook, with the time that is left; False shows nothing.
        sketch: As in `gram`. With engine="sketch" samples may be thousands. The intervals of the trace kernel hold the error
            of its sketches, one for each probe. Those of the residual kernel do not (gradient signal, GSNR, contamination);
            its one sketch leaves the signal and the energies unbiased.
        resume: A folder in which finished parts are kept (the kernels of each network, each bucket of the full kernel), so
            that the same call goes on from them after an interruption and returns the same numbers. Parts of other
            settings, networks, data or versions are never used. The folder stays: remove it when the diagnosis is saved.
        extrapolate: Also measure buckets at noise levels outside the schedule's support, which the network never saw; the
            summary marks them.
        distributed: Share the samples of all kernels out over the processes of `torch.distributed`, as in `gram_of`: each
            process calls this with the same arguments, and gets the same diagnosis. The first one alone shows progress and
            keeps parts. Parameters of networks sharded by `fully_shard` are gathered a unit at a time, as in `gram_of`. The
            full kernel needs all of them; each process measures it in one bucket at a time.

    Returns:
        A `Diagnosis`.

    Raises:
        InputError: no samples, more samples than data, buckets outside the schedule's support without `extrapolate`,
            references with another target or schedule, conditions that the data lacks or has beside those of the network,
            a full kernel that cannot be measured with these settings, or as `gram`.
        MeasurementError: the network gives non-finite numbers.

    Example:
        >>> denoiser = nd.Denoiser(nd.models.build("mlp", (2,), width=8), nd.schedules.cosine(), "v", call="log_snr")
        >>> diagnosis = nd.measure(denoiser, nd.data.load("mixture"), 4, samples=8)
        >>> list(diagnosis.summary[["log_snr", "effective_rank", "effective_rank_low"]].shape)
        [4, 3]
        >>> diagnosis.save("runs/diagnosis")
        >>> nd.Diagnosis.load("runs/diagnosis")
        Diagnosis(buckets=4, refs=[], full=False)
    """
    processes = Processes() if distributed else None
    with in_step(processes), gathered(processes, denoiser, refs):
        require_denoiser("network to measure", denoiser)
        require_positive_int("samples", samples)
        require_positive_int("probes", probes)
        if not (params is None or isinstance(params, str)):
            params = pattern_list(params)
        data = as_data(data)
        buckets = Buckets.of(buckets, denoiser.schedule, extrapolate=extrapolate)
        if held_out_unseen:
            data.held_out_for("held_out_unseen")
        refs = {} if refs is None else require_references(refs)
        for network in (denoiser, *refs.values()):
            require_forward(network, data)
        for reference, network in refs.items():
            require_comparable(reference, network, denoiser)
        if full is not None:
            require_full(full, samples * math.prod(data.shape), params)
        kept = resume if isinstance(resume, provenance.KeptParts) else None
        if resume is not None and kept is None:
            kept = provenance.KeptParts(require_path("resume", resume))
        draws = PairedDraws.draw(data.train, samples, seed, cond=data.conditions)
        settings: dict[str, Any] = {
            "probes": probes, "probe_seed": seed, "engine": engine, "params": params, "memory": memory,
            "check": check, "sketch": sketch, "processes": processes,
        }  # fmt: skip
        config = {
            "buckets": {"edges": list(buckets.edges), "centers": list(buckets.centers)},
            "samples": samples,
            "probes": probes,
            "kernel": "trace",
            "seed": seed,
            "params": params,
        } | ({} if full is None else {"full": asdict(full)})
        levels = torch.tensor(buckets.centers, dtype=torch.float64)
        bounds = {
            "held_out_unseen": held_out_unseen,
            "candidates": bound_candidates(denoiser, data, levels, seed),
        }
        most = samples_together(buckets.count, samples, probes, forward_operations(denoiser, data))
        settings["most_together"] = most
        shown = shown_references(refs)
        noise = DIRECTION * buckets.count * samples
        exact = noise if knows_optimum(denoiser, data) else 0
        total = (
            noise - exact + (1 + len(refs)) * (work_of_kernels(buckets.count, samples, probes, most) + exact)
        )
        if full is not None:
            total += (1 + len(shown)) * buckets.count * work_of_full(full, samples)
        with reporting(progress if processes is None or processes.rank == 0 else False) as report:
            settings["steps"] = steps = Steps(report, total)
            main = _diagnose(denoiser, data, buckets, draws, settings, config, name, None, full, bounds, kept)
            kappa = main.meta["kappa"]  # one scale for all, or their learnabilities could not be compared
            plain = {key: value for key, value in config.items() if key != "full"}
            for reference, network in refs.items():
                own, part = (config, full) if reference in shown else (plain, None)
                main.refs[reference] = _diagnose(
                    network, data, buckets, draws, settings, own, reference, kappa, part, bounds, kept
                )
            steps.finish()
        return main


def _diagnose(
    denoiser: Denoiser,
    data: Data,
    buckets: Buckets,
    draws: PairedDraws,
    settings: dict[str, Any],
    config: dict[str, Any],
    name: str,
    kappa: float | None,
    full: FullSettings | None,
    bounds: dict[str, Any],
    kept: provenance.KeptParts | None,
) -> Diagnosis:
    started = time.perf_counter()
    seed = config["seed"]
    parts, processes = provenance.KeyedParts(), settings["processes"]
    keeping = kept is not None
    if processes is not None:  # a sharded network is read by all, whoever keeps parts
        keeping = any(each[0] for each in processes.meet("kept parts", int(keeping)))
    if keeping:
        key = measurement_key(denoiser, data, draws, config, settings)
        parts = parts if kept is None else kept.of(key)
    if processes is not None:
        parts = SharedParts(processes, parts)
    settings = settings | {"check": CheckOnce() if settings["check"] else False}
    kernels = measure_kernels(denoiser, draws, buckets, name=name, parts=parts, **settings)
    views = BucketViews(kernels, buckets.count)
    truth = bayes_truth(denoiser, data, draws, buckets, seed, **bounds)
    scale = learnability_scale(views) if kappa is None else kappa
    optimal = {"contamination": truth.optimal, "contamination_finite": None}
    if truth.optimal is None and kappa is None:  # of the network itself, not of its references
        levels = torch.tensor(buckets.centers, dtype=torch.float64)
        optimal["contamination_finite"] = finite_optimal(denoiser, data, draws, levels)
    best = truth.optimal if optimal["contamination_finite"] is None else optimal["contamination_finite"]
    if kappa is None and best is None:
        settings["steps"].leave_out(DIRECTION * buckets.count * len(draws))
    noise = {
        column: _noise_energy(denoiser, draws, buckets, kernels, answer, settings, parts, (column, name))
        for column, answer in optimal.items()
    }
    summary = summary_table(denoiser, kernels, views, buckets, truth, noise, scale, draws)
    meta = _meta(denoiser, data, kernels, truth, config, name)
    grams = _grams(kernels)
    if kappa is None:  # of the network itself
        grams |= output_grams(denoiser, draws, buckets, kernels.predictions, best)
        meta[SOURCE] = "" if best is None else truth.source if truth.optimal is not None else FINITE
    meta |= {"kappa": scale, "seconds": round(time.perf_counter() - started, 3)}
    found = None
    if full is not None:
        found = _full_kernel(
            denoiser, data, draws, buckets, full, seed, name, settings["steps"], parts, processes
        )
        meta["full_seconds"] = round(time.perf_counter() - started - meta["seconds"], 3)
    return Diagnosis(
        summary=summary,
        spectra=spectra_table(views, buckets),
        coupling=coupling_table(kernels, buckets),
        rarefaction=rarefaction_table(views, buckets, seed),
        grams=grams | _labels(data, draws),
        meta=meta,
        full=found,
    )


def _full_kernel(
    denoiser: Denoiser,
    data: Data,
    draws: PairedDraws,
    buckets: Buckets,
    settings: FullSettings,
    seed: int,
    name: str,
    steps: Steps,
    parts: provenance.KeyedParts,
    processes: Processes | None,
) -> FullKernel:
    with gathered_whole(denoiser), measuring(denoiser):
        return measure_full(
            denoiser,
            in_memory(data.train, MANY),
            draws,
            buckets,
            settings,
            seed=seed,
            steps=steps,
            name=name,
            parts=parts,
            processes=processes,
        )


def _noise_energy(
    denoiser: Denoiser,
    draws: PairedDraws,
    buckets: Buckets,
    kernels: Kernels,
    optimal: torch.Tensor | None,
    settings: dict[str, Any],
    parts: provenance.KeyedParts,
    named: tuple[str, str],
) -> torch.Tensor | None:
    """Gradient energy of the Bayes noise E[y|x] − y of each sample; None where the posterior is not known.

    Args:
        named: Name of the part, and of the network.
    """
    if optimal is None:
        return None
    options = {
        name: settings[name] for name in ("engine", "params", "memory", "check", "sketch", "processes")
    }
    seed = settings["probe_seed"]
    noise = optimal - kernels.wanted

    def make() -> dict[str, Any]:
        return {"energy": gradient_energy(denoiser, draws, buckets, noise, seed=seed, **options)}

    part, network = named
    work = DIRECTION * buckets.count * len(draws)
    found: torch.Tensor = settings["steps"].take(
        f"noise of the target in the {network} network", work, parts, part, make
    )["energy"]
    return found


def _meta(
    denoiser: Denoiser, data: Data, kernels: Kernels, truth: BayesTruth, config: dict[str, Any], name: str
) -> dict[str, Any]:
    parameter = next(denoiser.parameters())
    return {
        "environment": provenance.environment(parameter.device),
        "config": {**config, "target": denoiser.target, "schedule": denoiser.schedule.describe()},
        "data": {
            "name": data.name,
            "digest": data.digest,
            "shape": list(data.shape),
            "description": data.description,
            "from_network": data.from_network,
        },
        "conditions": _conditions(denoiser, data),
        "network": {
            "name": name,
            "class": type(denoiser.network).__name__,
            "parameters": kernels.trace[0].parameters,
            "outputs": kernels.trace[0].outputs,
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "digest": provenance.digest_of(with_values(denoiser.network, tensors_of(denoiser.network))),
            "zero_start": list(zero_last_layer(denoiser, data.train[:2], data.conditions)),
        },
        "bayes_source": truth.source,
        "bayes_bounds": list(truth.bounds),
        "engine": kernels.trace[0].engine,
        "coverage": kernels.trace[0].coverage,
    }


def _conditions(denoiser: Denoiser, data: Data) -> dict[str, Any]:
    """What the network was called with: the conditions of the data, or the default of one that stands for none."""
    own = {name: {"default": value} for name, value in denoiser.falls_back_to(data.conditions).items()}
    return described(denoiser.conditions_from(data.conditions)) | own


def _grams(kernels: Kernels) -> dict[str, torch.Tensor]:
    """What the diagnosis keeps: the trace kernel of each bucket with its probes, the residual kernel of all, the losses."""
    kept = {
        "trace": torch.stack([gram.matrix for gram in kernels.trace]),
        "residual": kernels.residual.matrix,
        "losses": kernels.losses,
    }
    for name, parts in (
        ("trace_stderr", [gram.stderr for gram in kernels.trace]),
        ("per_probe", [gram.per_probe for gram in kernels.trace]),
    ):
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            kept[name] = torch.stack(known)
    return kept


def _labels(data: Data, draws: PairedDraws) -> dict[str, torch.Tensor]:
    """The class of each drawn sample, where the data has labels."""
    if data.labels is None or draws.rows is None:
        return {}
    return {LABELS: data.labels[draws.rows.to(data.labels.device)].cpu()}

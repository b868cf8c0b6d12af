"""Train, measure, weight, train again, compare.

Everything is built in a folder aside, which becomes the demo's folder when all of it is there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.demonstration.plan import FULL, QUICK, RUNS, Outcome, Plan
from ntkdiag.cli.demonstration.record import document, write
from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.cli.inputs.training_runs import WEIGHTS_FILE, held_out
from ntkdiag.cli.output.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.train import TrainResult
    from ntkdiag.weights import WeightTable

__all__ = ["FULL", "QUICK", "demonstrate"]


def demonstrate(out: Path, plan: Plan, seed: int, force: bool, bars: Progress) -> dict[str, Any]:
    """Run the demo and write its folder.

    Args:
        out: The folder.
        plan: Sizes.
        seed: Of initial weights, batches, draws, probes and samples.
        force: Replace an earlier run there.
        bars: Told of progress.

    Returns:
        What demo.json holds; equal for equal seeds but for "seconds".
    """
    from ntkdiag import provenance

    started = time.perf_counter()
    with provenance.run_folder(out, force) as folder, _one_thread():
        outcome = _work(folder, plan, seed, bars)
        write(folder, outcome, bars)
        told = document(outcome, plan, seed) | {"seconds": round(time.perf_counter() - started, 1)}
        provenance.write_json(folder / "demo.json", told)
    return told


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread inside the block: sums are formed in the same order on any number of cores.

    It costs little at this size, and threads that wait for each other on a busy machine cost far more.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _work(folder: Path, plan: Plan, seed: int, bars: Progress) -> Outcome:
    """Train, measure, weight, train again, compare."""
    from ntkdiag.claims import judge
    from ntkdiag.cli.inputs.loading import load_recipe
    from ntkdiag.diagnosis import measure
    from ntkdiag.process.buckets import DEFAULT_RANGE, Buckets
    from ntkdiag.weights import rule

    recipe = Recipe("dit", dict(plan.network), "cosine", {}, "v", "log_snr", "digits", seed)
    start = load_recipe(recipe, None, "cpu")
    buckets = Buckets.uniform(*DEFAULT_RANGE, plan.buckets)
    table = rule("erd", start.denoiser.target, start.denoiser.schedule)

    results = {"constant": _train("constant", None, start, folder, plan, buckets, bars)}
    diagnosis = measure(
        results["constant"].denoiser,
        start.data,
        buckets,
        samples=plan.samples,
        probes=plan.probes,
        seed=seed,
        refs={"untrained": start.denoiser},
        progress=bars,
    )
    results["erd"] = _train("erd", table, start, folder, plan, buckets, bars)
    losses = {name: held_out(result.denoiser, start.data, buckets) for name, result in results.items()}
    samples = _samples(results, start, plan, seed, bars)
    return Outcome(
        diagnosis, table, results, losses, samples, _quality(samples, start), judge(diagnosis, seed=seed)
    )


def _train(
    name: str,
    table: WeightTable | None,
    start: LoadedModel,
    folder: Path,
    plan: Plan,
    buckets: Buckets,
    bars: Progress,
) -> TrainResult:
    """One run, from the same weights and with the same batches, noise and noise levels as the other."""
    from ntkdiag.cli.inputs.weighting import fixed
    from ntkdiag.train import TrainConfig, train

    seed = start.recipe.seed
    result = train(
        copy.deepcopy(start.denoiser),
        start.data,
        None if table is None else fixed(table),
        TrainConfig.preset("digits", steps=plan.steps, batch=plan.batch, seed=seed),
        buckets=buckets,
        out=folder / name,
        progress=lambda step, steps, loss: bars(f"training, {name} weight · loss {loss:.3g}", step, steps),
        notes={"recipe": start.recipe.to_dict(), "checkpoint": None, "weights": name},
    )
    if table is not None:
        table.save(folder / name / WEIGHTS_FILE)
    return result


def _samples(
    results: dict[str, TrainResult], start: LoadedModel, plan: Plan, seed: int, bars: Progress
) -> dict[str, Any]:
    from ntkdiag.train import sample

    drawn = {"data": start.data.held_out}
    for done, (name, result) in enumerate(results.items()):
        bars("sampling", done, len(results))
        drawn[name] = sample(
            result.denoiser, plan.generated, start.data.shape, steps=plan.sampler_steps, seed=seed
        )
    bars("sampling", len(results), len(results))
    return {name: values.numpy() for name, values in drawn.items()}


def _quality(samples: dict[str, Any], start: LoadedModel) -> pd.DataFrame:
    """Energy distance of each run's samples to held-out data, and that of as many real images."""
    import pandas as pd
    import torch

    from ntkdiag.train import energy_distance_to_data

    data, rows = start.data, {}
    for name in RUNS:
        found = energy_distance_to_data(torch.from_numpy(samples[name]), data.held_out, data.train)
        rows[name], rows["real data"] = found.samples, found.floor
    return pd.DataFrame(
        [
            {"run": name, "metric": "energy distance to held-out data", **asdict(rows[name])}
            for name in (*RUNS, "real data")
        ]
    )

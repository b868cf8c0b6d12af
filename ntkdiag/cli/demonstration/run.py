"""The demo's steps: train, measure, make weights, train again, compare.

Everything is built in a temporary folder, which becomes the demo's folder when it is complete.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.demonstration.results import DemoResults, document, write
from ntkdiag.cli.inputs.recipe import Recipe
from ntkdiag.cli.inputs.training_runs import WEIGHTS_FILE, held_out
from ntkdiag.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.train import TrainResult
    from ntkdiag.weights import WeightTable


@dataclass(frozen=True)
class Plan:
    """The sizes of the demo.

    Attributes:
        network: Options of the DiT.
        steps, batch: Of each of the two training runs.
        buckets, samples, probes: Of the measurement, over log-SNR −10 to 10.
        controls: Untrained networks that are measured beside it.
        generated: Samples drawn from each network.
        sampler_steps: Steps of Heun's method.
    """

    network: dict[str, int]
    steps: int
    batch: int
    buckets: int
    samples: int
    probes: int
    controls: int
    generated: int
    sampler_steps: int


RANGE = (-10.0, 10.0)  # of log-SNR
FULL = Plan({"width": 48, "depth": 3}, 1500, 128, 10, 64, 8, 5, 512, 24)
QUICK = Plan({"width": 16, "depth": 1, "heads": 2, "frequencies": 8}, 30, 32, 5, 12, 3, 2, 24, 4)


def demonstrate(out: Path, plan: Plan, seed: int, force: bool, progress: Progress) -> dict[str, Any]:
    """Run the demo and write its folder.

    Args:
        out: The folder.
        plan: Sizes.
        seed: Seed of initial weights, batches, draws, probes and samples.
        force: Replace an earlier run there.
        progress: Called as each stage advances.

    Returns:
        What demo.json holds; equal for equal seeds but for "seconds".
    """
    from ntkdiag import provenance

    started = time.perf_counter()
    with provenance.run_folder(out, force) as folder, _one_thread():
        results = _run(folder, plan, seed, progress)
        write(folder, results, progress)
        numbers = document(results, asdict(plan), seed)
        numbers["seconds"] = round(time.perf_counter() - started, 1)
        provenance.write_json(folder / "demo.json", numbers)
    return numbers


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


def _run(folder: Path, plan: Plan, seed: int, progress: Progress) -> DemoResults:
    from ntkdiag.claims import verify
    from ntkdiag.cli.inputs.loading import load_recipe
    from ntkdiag.diagnosis import fresh_controls, measure
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.weights import rule

    recipe = Recipe("dit", dict(plan.network), "cosine", {}, "v", "log_snr", "digits", seed=seed)
    start = load_recipe(recipe, None, "cpu")
    buckets = Buckets.uniform(*RANGE, plan.buckets)
    table = rule("erd", start.denoiser.target, start.denoiser.schedule)

    runs = {"constant": _train("constant", None, start, folder, plan, buckets, progress)}
    controls, _ = fresh_controls(
        lambda seed: recipe.build(start.data.shape, seed),
        runs["constant"].denoiser,
        start.data.train[:2],
        plan.controls,
        seed,
    )
    diagnosis = measure(
        runs["constant"].denoiser,
        start.data,
        buckets,
        samples=plan.samples,
        probes=plan.probes,
        seed=seed,
        refs=controls,  # the first is the network before its training
        held_out_unseen=True,
        progress=progress,
    )
    runs["erd"] = _train("erd", table, start, folder, plan, buckets, progress)
    losses = {name: held_out(run.denoiser, start.data, buckets) for name, run in runs.items()}
    samples = _samples(runs, start, plan, seed, progress)
    return DemoResults(diagnosis, table, runs, losses, samples, _quality(samples, start), verify(diagnosis))


def _train(
    name: str,
    table: WeightTable | None,
    start: LoadedModel,
    folder: Path,
    plan: Plan,
    buckets: Buckets,
    progress: Progress,
) -> TrainResult:
    """One run, from the same weights and with the same batches, noise and noise levels as the other."""
    from ntkdiag.cli.inputs.weighting import fixed
    from ntkdiag.train import TrainConfig, train

    result = train(
        copy.deepcopy(start.denoiser),
        start.data,
        None if table is None else fixed(table),
        TrainConfig.preset("digits", steps=plan.steps, batch=plan.batch, seed=start.recipe.seed),
        buckets=buckets,
        out=folder / name,
        progress=lambda step, steps, loss: progress(
            f"training, {name} weight · loss {loss:.3g}", step, steps
        ),
        notes={"recipe": start.recipe.to_dict(), "checkpoint": None, "weights": name},
    )
    if table is not None:
        table.save(folder / name / WEIGHTS_FILE)
    return result


def _samples(
    runs: dict[str, TrainResult], start: LoadedModel, plan: Plan, seed: int, progress: Progress
) -> dict[str, Any]:
    from ntkdiag.cli.inputs.loading import unseen
    from ntkdiag.train import sample

    drawn = {"data": unseen(start.data)}
    for done, (name, run) in enumerate(runs.items()):
        progress("sampling", done, len(runs))
        drawn[name] = sample(
            run.denoiser, plan.generated, start.data.shape, steps=plan.sampler_steps, seed=seed
        )
    progress("sampling", len(runs), len(runs))
    return {name: values.numpy() for name, values in drawn.items()}


def _quality(samples: dict[str, Any], start: LoadedModel) -> pd.DataFrame:
    """Energy distance of each run's samples to held-out data, and that of as many real images."""
    import pandas as pd
    import torch

    from ntkdiag.cli.inputs.loading import unseen
    from ntkdiag.train import energy_distance_to_data

    data = start.data
    found: dict[str, Any] = {}
    for name in ("constant", "erd"):
        distance = energy_distance_to_data(torch.from_numpy(samples[name]), unseen(data), data.train)
        found |= {name: distance.samples, "real data": distance.floor}
    names = ("constant", "erd", "real data")
    metric = "energy distance to held-out data"
    return pd.DataFrame([{"run": name, "metric": metric, **asdict(found[name])} for name in names])

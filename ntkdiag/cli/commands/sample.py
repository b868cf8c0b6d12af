"""`ntkdiag sample`: samples of a network, and their distance to held-out data."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli.options.grouping import grouped
from ntkdiag.cli.options.shared import Force, Json, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.cli.output.progress import progress_bar
from ntkdiag.errors import InputError, require_positive_int

if TYPE_CHECKING:
    from torch import Tensor

    from ntkdiag.cli.inputs.loading import LoadedModel


@grouped
def sample(
    model: ModelOptions,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npy",
            help="The file for the samples [N, ...]; a picture is saved beside it as .png.",
        ),
    ],
    count: Annotated[int, typer.Option(metavar="N", help="Number of samples.")] = 512,
    steps: Annotated[
        int, typer.Option(metavar="N", help="Number of steps of Heun's method, of two network calls each.")
    ] = 32,
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw samples along the probability-flow ODE, and measure their distance to held-out data.

    \b
    Example:
      ntkdiag sample --model runs/erd --out erd.npy
    """
    from ntkdiag.cli.inputs.loading import load, notes_on
    from ntkdiag.train import sample as draw

    picture = out.with_suffix(".png")
    paths.check_file(out, force, (".npy",))
    paths.check_file(picture, force, (".png",))
    require_positive_int("--count", count)
    require_positive_int("--steps", steps)
    loaded = load(model)
    with progress_bar(not json) as bars:
        bars("sampling", 0, 1)
        drawn = draw(loaded.denoiser, count, loaded.data.shape, steps=steps, seed=model.seed).float().cpu()
        bars("sampling", 1, 1)
    for text in notes_on(loaded, controls_missing=False):
        note(text)
    quality = quality_of(drawn, loaded)
    written = _write(drawn, loaded, out, picture)
    if json:
        print_json({"count": count, "steps": steps, "quality": quality, "written": written})
        return
    from ntkdiag.cli.output.tables import quality_text

    say(quality_text(quality))
    say("\nWritten: " + ", ".join(map(str, written)))


def quality_of(samples: Tensor, loaded: LoadedModel) -> dict[str, Any]:
    """The quality of samples and of real data: metric → name → value, low, high; empty for fewer than 3 samples."""
    from ntkdiag.cli.inputs.loading import unseen
    from ntkdiag.process.bayes import MixtureOracle
    from ntkdiag.train import energy_distance_to_data, log_likelihood

    data, held_out = loaded.data, unseen(loaded.data)
    if len(samples) < 3:
        return {}
    distance = energy_distance_to_data(samples, held_out, data.train)
    quality = {"energy distance": {"samples": asdict(distance.samples), "real data": asdict(distance.floor)}}
    if isinstance(data.oracle, MixtureOracle):
        quality["log-likelihood, nats"] = {
            "samples": asdict(log_likelihood(samples, data.oracle)),
            "real data": asdict(log_likelihood(held_out, data.oracle)),
        }
    return quality


def _write(samples: Tensor, loaded: LoadedModel, out: Path, picture: Path) -> list[Path]:
    """Write the array, and a picture if the samples can be drawn; return the paths."""
    import numpy as np

    from ntkdiag import provenance
    from ntkdiag.cli.inputs.loading import unseen
    from ntkdiag.report.figures.samples import sample_names

    array = samples.numpy()
    buffer = io.BytesIO()
    np.save(buffer, array)
    with provenance.made_parent(out):
        provenance.write_bytes(out, buffer.getvalue())
    shown = {"data": unseen(loaded.data).cpu().numpy(), "samples": array}
    try:
        sample_names(shown)
    except InputError:  # neither images nor points in the plane
        return [out]
    provenance.write_bytes(picture, _picture(shown))
    return [out, picture]


def _picture(shown: dict[str, Any]) -> bytes:
    """Real data and samples side by side, as PNG."""
    from ntkdiag.report import FIGURES
    from ntkdiag.report.render import render

    return render(FIGURES["samples"], shown, "png")

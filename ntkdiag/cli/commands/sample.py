"""`ntkdiag sample`: samples of a network, and their distance to held-out data."""

from __future__ import annotations

import io
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli.options.choices import SAMPLERS, one_of
from ntkdiag.cli.options.grouping import grouped
from ntkdiag.cli.options.shared import Force, Json, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.errors import InputError, require_one_of, require_positive_int
from ntkdiag.progress import progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.data import Data


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
        int,
        typer.Option(
            metavar="N", help="Number of steps; heun calls the network twice in each, the others once."
        ),
    ] = 32,
    sampler: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How noise becomes samples: along the probability-flow ODE (heun, ddim), or with fresh noise in each step. "
            + one_of(SAMPLERS),
        ),
    ] = "heun",
    label: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="no label",
            help="The class to draw, of a network that takes labels. Samples are compared with data of this class.",
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Scale of classifier-free guidance towards --label; 1 is none, 0 ignores the label.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw samples, and measure their distance to held-out data.

    \b
    Examples:
      ntkdiag sample --model runs/erd --out erd.npy
      ntkdiag sample --model runs/classes --label 3 --guidance 2 --out threes.npy
      ntkdiag sample --model runs/classes --label 3 --sampler ddim --steps 50 --out threes.npy
    """
    from ntkdiag.cli.inputs.loading import load
    from ntkdiag.cli.inputs.loading_notes import notes_on
    from ntkdiag.train import sample as draw

    picture = out.with_suffix(".png")
    paths.check_file(out, force, (".npy",))
    paths.check_file(picture, force, (".png",))
    require_positive_int("--count", count)
    require_positive_int("--steps", steps)
    require_one_of("--sampler", sampler, SAMPLERS)
    if guidance is not None and label is None:
        raise InputError("--guidance", expected="--label beside it", got="no label")
    loaded = load(model)
    cond = None if label is None else _condition(loaded, label, count)
    with progress_bar(not json) as bars:
        bars("sampling", 0, 1)
        how: dict[str, Any] = {"steps": steps, "seed": model.seed, "sampler": sampler}
        how |= {"cond": cond, "guidance": guidance}
        drawn = draw(loaded.denoiser, count, loaded.data.shape, **how).float().cpu()
        bars("sampling", 1, 1)
    for text in notes_on(loaded, controls_missing=False):
        note(text)
    if label is not None:
        loaded = replace(loaded, data=_of_class(loaded.data, label))
    quality = quality_of(drawn, loaded, steps if sampler == "heun" else None)
    written = _write(drawn, loaded, out, picture)
    if json:
        print_json(
            {"count": count, "steps": steps, "sampler": sampler, "quality": quality, "written": written}
        )
        return
    from ntkdiag.cli.output.tables import quality_text

    say(quality_text(quality))
    say("\nWritten: " + ", ".join(map(str, written)))


def _condition(loaded: LoadedModel, label: int, count: int) -> dict[str, Tensor]:
    """One label for all samples.

    Raises:
        InputError: the network takes no labels, or not this one.
    """
    import torch

    from ntkdiag.modes import evaluating

    denoiser = loaded.denoiser
    if list(denoiser.conditions) != ["label"]:
        got = ", ".join(denoiser.conditions) or "no conditions"
        raise InputError("--label", expected="a network that takes labels and nothing else", got=got)
    null = denoiser.null.get("label")
    try:
        with evaluating(denoiser) as like:
            x = torch.zeros(1, *loaded.data.shape).to(like)
            denoiser(x, float(denoiser.schedule.quantile(0.5)), {"label": torch.tensor([label])})
    except IndexError as error:
        limits = "one of its labels" if null is None else f"a label from 0 to {null}"
        raise InputError("--label", expected=limits, got=label) from error
    return {"label": torch.full((count,), label)}


def _of_class(data: Data, label: int) -> Data:
    """The samples of a class, to compare with; all where labels are not known or too few have this one."""
    few = 3
    if data.labels is None or data.held_out is None or data.held_out_labels is None:
        note("note: the data has no labels, so samples are compared with data of all classes")
        return data
    train, held_out = ((part == label).nonzero().flatten() for part in (data.labels, data.held_out_labels))
    if len(train) < few or len(held_out) < few:
        note(
            f"note: few samples of the data have label {label}, so samples are compared with data of all classes"
        )
        return data
    return replace(
        data,
        train=data.train[train],
        held_out=data.held_out[held_out],
        oracle=None,
        labels=data.labels[train],
        held_out_labels=data.held_out_labels[held_out],
        cond={},
        held_out_cond={},
    )


def quality_of(samples: Tensor, loaded: LoadedModel, flow_steps: int | None) -> dict[str, Any]:
    """The quality of samples and of real data: metric → name → value, low, high; empty for fewer than 3 samples.

    The KL divergence is of the network, by the flow that Heun's method follows in as many steps; None leaves it out.
    """
    from ntkdiag.cli.inputs.loading import unseen
    from ntkdiag.process.bayes import MixtureOracle
    from ntkdiag.train import Estimate, energy_distance_to_data, kl_divergence, log_likelihood

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
        if flow_steps is not None:
            quality["KL divergence, nats"] = {
                "samples": asdict(kl_divergence(loaded.denoiser, data, steps=flow_steps)),
                "real data": asdict(Estimate(0.0, 0.0, 0.0, 0.0)),
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

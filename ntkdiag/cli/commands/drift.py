"""`ntkdiag drift`: how a run's kernel changed in training, how far it can be trusted, and what features and outputs do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntkdiag.cli.options.choices import LEVELS, one_of
from ntkdiag.cli.options.shared import Force, Json, ModelOptions, Seed
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.errors import InputError, require_positive_int
from ntkdiag.progress import progress_bar

if TYPE_CHECKING:
    from ntkdiag.trust import Examination

# Written beside the tables.
PICTURE = "drift.png"


def drift(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="A folder written by 'ntkdiag train --setting keep_every=N'."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder for the tables, the figure and trust.json."),
    ] = None,
    level: Annotated[
        str, typer.Option(metavar="NAME", help="How much to measure. " + one_of(LEVELS))
    ] = "standard",
    buckets: Annotated[int, typer.Option(metavar="N", help="Number of noise levels, at least 3.")] = 10,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            show_default="the parts of the network",
            help="The modules whose features are read, by name, such as 'blocks.*'. May be repeated.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="The torch device.")] = "cpu",
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Say how the kernel changed along a training run, how many steps it describes, and what features and outputs do.

    The steps are those whose weights the run kept. Real optimizer steps go on from its last checkpoint, on a copy.

    Train with --setting keep_every=500, and give the folder to 'ntkdiag report --trust'.

    \b
    Examples:
      ntkdiag drift runs/mine --out runs/mine-trust
      ntkdiag drift runs/mine --level quick --modules 'blocks.*'
    """
    paths.check_folder(out, force)
    require_positive_int("--buckets", buckets)
    if not run.is_dir():
        raise InputError("RUN", expected="a folder written by 'ntkdiag train'", got=str(run))
    found = _examine(run, level, buckets, modules, device, seed, bars=not json)
    if out is not None:
        _write(found, out, force)
    if json:
        tables = {name: table.to_dict("records") for name, table in found.tables.items()}
        print_json({"said": found.said, "tables": tables, **found.meta, "written": out})
        return
    from ntkdiag.cli.output.trust_text import trust_text

    say(trust_text(found))
    if out is not None:
        say(f"\nWritten: {out}")


def _examine(
    run: Path, level: str, buckets: int, modules: list[str] | None, device: str, seed: int, bars: bool
) -> Examination:
    from ntkdiag.cli.inputs.loading import load
    from ntkdiag.cli.inputs.loading_notes import loading_notes
    from ntkdiag.cli.inputs.step_range import run_weights
    from ntkdiag.train.checkpoints.run_folder import kept_weights
    from ntkdiag.trust.examination import cost, examine

    loaded = load(ModelOptions(model=str(run.resolve()), device=device, seed=seed))
    for text in loading_notes(loaded):
        note(text)
    controls, _ = loaded.controls(1)
    steps = cost(run, level, buckets)
    note(f"note: this costs about as much as {steps:,} training steps of batch 128")
    if len(kept_weights(run)) < 2:
        note(
            "note: the run kept no weights along the way, so there is no drift to measure; train with "
            "--setting keep_every=500"
        )
    with progress_bar(bars) as progress:
        return examine(
            run,
            loaded.denoiser,
            loaded.data,
            buckets=buckets,
            level=level,
            seed=seed,
            patterns=modules,
            untrained=next(iter(controls.values()), None),
            weights=run_weights(run),
            progress=progress,
        )


def _write(found: Examination, out: Path, force: bool) -> None:
    from ntkdiag import provenance
    from ntkdiag.report import FIGURES
    from ntkdiag.report.render import render

    with provenance.run_folder(out, force) as building:
        found.write(building)
        if "drift" in found.tables:
            provenance.write_bytes(building / PICTURE, render(FIGURES["drift"], found, "png"))

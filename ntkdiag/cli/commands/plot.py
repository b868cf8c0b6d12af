"""`ntkdiag plot`: one figure of a diagnosis, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntkdiag.cli.options.shared import Folder, Json, Runs, Tables
from ntkdiag.cli.output import destinations as outputs
from ntkdiag.cli.output.console import print_json, say
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.report.drawing.registry import FIGURES

_FILES = (".png", ".svg", ".pdf")
# Need things that only `report` and `demo` have at hand.
_DRAWN = tuple(
    name for name, spec in FIGURES.items() if spec.subject in ("diagnosis", "full", "weights", "runs")
)


def plot(
    diagnosis: Folder,
    what: Annotated[
        str, typer.Option(metavar="NAME", help="Which figure: " + ", ".join(_DRAWN) + ".")
    ] = "effective_rank",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .png, .svg or .pdf file. (default: NAME.png)")
    ] = None,
    theme: Annotated[str, typer.Option(metavar="light|dark", help="Colours.")] = "light",
    table: Tables = None,
    run: Runs = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    json: Json = False,
) -> None:
    """Draw one figure of a diagnosis."""
    from ntkdiag.cli.inputs import materials

    require_one_of("--what", what, _DRAWN)
    path = out or Path(f"{what}.png")
    outputs.check_file(path, force, _FILES)

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.report import plot as draw

    found = Diagnosis.load(diagnosis)
    parts = {"tables": materials.weight_tables(table), "runs": materials.runs(run)}
    if FIGURES[what].subject == "runs" and parts["runs"] is None:
        raise InputError("--run", expected=f"at least one training folder, for figure {what}", got="none")
    draw(found, what, outputs.make_parent(path), theme=theme, **parts)
    if json:
        print_json({"figure": what, "written": str(path)})
    else:
        say(f"Written: {path}")

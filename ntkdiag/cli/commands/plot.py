"""`ntkdiag plot`: one figure of a diagnosis, into a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntkdiag.cli.options.choices import THEMES, one_of
from ntkdiag.cli.options.shared import Folder, ForceFile, Json, Runs, Tables
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say
from ntkdiag.errors import InputError, require_one_of
from ntkdiag.report.figure_decorator import REGISTERED
from ntkdiag.report.figure_order import ORDER

_FILES = (".png", ".svg", ".pdf")
# Drawn from things that only `report` and `demo` have at hand.
_NOT_DRAWN = ("quality", "samples", "linear_error", "drift", "feature_rank", "output_rank")


def listed() -> list[str]:
    """Figures that this command can draw, for the help, without loading what draws them."""
    names = dict.fromkeys([*ORDER, *REGISTERED])
    return [name for name in names if name not in _NOT_DRAWN]


def plot(
    diagnosis: Folder,
    what: Annotated[
        str, typer.Option(metavar="NAME", help="The figure. " + one_of(listed()))
    ] = "effective_rank",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default="NAME.png", help="The .png, .svg or .pdf file to write."),
    ] = None,
    theme: Annotated[str, typer.Option(metavar="NAME", help="The colours. " + one_of(THEMES))] = "light",
    table: Tables = None,
    run: Runs = None,
    force: ForceFile = False,
    json: Json = False,
) -> None:
    """Draw one figure of a diagnosis.

    \b
    Examples:
      ntkdiag plot runs/mine --what effective_rank --out rank.svg
      ntkdiag plot runs/mine --what weights --table erd.csv --theme dark
    """
    from ntkdiag import provenance
    from ntkdiag.cli.inputs import report_files
    from ntkdiag.report import FIGURES
    from ntkdiag.report.inputs import QUALITY, RUNS, SAMPLES, TRUST

    drawn = [name for name, figure in FIGURES.items() if figure.draws not in (QUALITY, SAMPLES, TRUST)]
    require_one_of("--what", what, drawn)
    path = out or Path(f"{what}.png")
    paths.check_file(path, force, _FILES)

    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.report import plot as draw

    found = Diagnosis.load(diagnosis)
    parts = {"tables": report_files.weight_tables(table), "runs": report_files.runs(run)}
    if FIGURES[what].draws is RUNS and parts["runs"] is None:
        raise InputError("--run", expected=f"at least one training folder, for figure {what}", got="none")
    with provenance.made_parent(path):
        draw(found, what, path, theme=theme, **parts)
    if json:
        print_json({"figure": what, "written": path})
    else:
        say(f"Written: {path}")

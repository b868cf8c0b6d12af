"""`ntkdiag report`: a diagnosis as one HTML page that needs no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntkdiag.cli.options.shared import Folder, ForceFile, Json, Runs, Tables
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say


def report(
    diagnosis: Folder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .html file to write.")] = Path("page.html"),
    verdicts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            show_default="answered from the diagnosis",
            help="What 'ntkdiag verify --out' wrote: the folder, or its verdicts.json.",
        ),
    ] = None,
    table: Tables = None,
    run: Runs = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="What 'ntkdiag drift --out' wrote, for the sections on trust, features and outputs.",
        ),
    ] = None,
    force: ForceFile = False,
    json: Json = False,
) -> None:
    """Write a diagnosis as one HTML page: what was measured, on what, and what it means.

    \b
    Examples:
      ntkdiag report runs/mine --run constant=runs/a --run erd=runs/b --table erd.csv
      ntkdiag report runs/mine --trust runs/mine-trust
    """
    paths.check_file(out, force, (".html",))

    from ntkdiag import provenance
    from ntkdiag.cli.inputs import report_files
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.report import write_page
    from ntkdiag.trust import Examination

    found = Diagnosis.load(diagnosis)
    with provenance.made_parent(out):
        write_page(
            out,
            found,
            verdicts=report_files.verdicts(verdicts, found),
            tables=report_files.weight_tables(table),
            runs=report_files.runs(run),
            trust=None if trust is None else Examination.load(trust),
        )
    if json:
        print_json({"written": out})
    else:
        say(f"Written: {out}")

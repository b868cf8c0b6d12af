"""`ntkdiag demo`: train, measure and reweight a small network on handwritten digits, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ntkdiag.cli.options.shared import Force, Json, Seed
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say
from ntkdiag.progress import progress_bar


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for all results.")] = Path(
        "runs/demo"
    ),
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Run in seconds instead of minutes, at sizes whose numbers mean nothing."
        ),
    ] = False,
    seed: Seed = 0,
    force: Force = False,
    json: Json = False,
) -> None:
    """Train a small DiT on digits, measure it before and after, weight its loss by ERD, train again, compare.

    It takes about two minutes on two CPU cores. The folder holds both training runs, the diagnosis, the figures and
    page.html.

    \b
    Examples:
      ntkdiag demo
      ntkdiag demo --quick --out runs/quick
    """
    paths.check_folder(out, force)

    from ntkdiag.cli.demonstration.results import demo_text
    from ntkdiag.cli.demonstration.run import FULL, QUICK, demonstrate

    with progress_bar(not json) as progress:
        document = demonstrate(out, QUICK if quick else FULL, seed, force, progress)
    if json:
        print_json(document)
    else:
        say(demo_text(document))
        say(f"\nPage: {out / 'page.html'}")

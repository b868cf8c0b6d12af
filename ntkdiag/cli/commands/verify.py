"""`ntkdiag verify`: the paper's claims, tested on a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ntkdiag.cli.commands.measure import diagnose
from ntkdiag.cli.options.grouping import grouped, refuse_given
from ntkdiag.cli.options.shared import Force, Json, MeasureOptions, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say
from ntkdiag.errors import require_int

if TYPE_CHECKING:
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis


@grouped
def verify(
    model: ModelOptions,
    how: MeasureOptions,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIAGNOSIS",
            help="Test the claims on this folder of 'ntkdiag measure --out' instead of measuring a network.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The folder for verdicts.csv, verdicts.json and the diagnosis, if one was measured.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Test the claims about representation degradation: each is supported, contradicted or inconclusive.

    The exit code is 0 whatever the verdicts: a contradicted claim is a result, not a failure.

    \b
    Examples:
      ntkdiag verify --model runs/erd
      ntkdiag verify --from runs/mine --out runs/mine-verdicts
    """
    paths.check_folder(out, force)
    if source is None:
        from ntkdiag.claims.evidence import MIN_BUCKETS, MIN_SAMPLES

        require_int("--samples (for intervals)", how.samples, at_least=MIN_SAMPLES)
        diagnosis = diagnose(model, how, bars=not json, least_buckets=MIN_BUCKETS)
    else:
        refuse_given((model, how), "beside --from, which measures nothing", allowed=("seed",))
        from ntkdiag.diagnosis import Diagnosis

        diagnosis = Diagnosis.load(source)

    from ntkdiag.claims import judge

    verdicts = judge(diagnosis, seed=model.seed)
    if out is not None:
        _write(out, force, verdicts, diagnosis if source is None else None)
    if json:
        print_json({"verdicts": verdicts.to_dict("records"), "written": out})
        return
    from ntkdiag.cli.output.tables import remark_text, verdict_text

    if remarks := remark_text(diagnosis):
        say(remarks + "\n")
    say(verdict_text(verdicts.to_dict("records")))
    if out is not None:
        say(f"\nWritten: {out}")


def _write(out: Path, force: bool, verdicts: pd.DataFrame, diagnosis: Diagnosis | None) -> None:
    from ntkdiag import provenance
    from ntkdiag.cli.output.json_document import plain

    with provenance.run_folder(out, force) as building:
        provenance.write_text(building / "verdicts.csv", verdicts.to_csv(index=False))
        provenance.write_json(building / "verdicts.json", plain(verdicts.to_dict("records")))
        if diagnosis is not None:
            diagnosis.save(building / "diagnosis")

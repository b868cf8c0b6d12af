"""`ntkdiag weights`: a weight table, from a rule or from a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli import outputs, parsing
from ntkdiag.cli.console import print_json, say
from ntkdiag.cli.options import Force, Json
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.process.schedule import Schedule
    from ntkdiag.weights import WeightTable


def weights(
    rule: Annotated[
        str | None, typer.Option(metavar="NAME", help="A closed form; see --list.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the network predicts.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The rule's parameter, such as gamma=5; may be repeated."),
    ] = None,
    clip: Annotated[
        float | None, typer.Option(metavar="X", help="Largest weight before normalising.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIAGNOSIS", help="A folder written by 'ntkdiag measure --out'."),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="amplitude, bayes, learnability or gsnr. (default: bayes)"),
    ] = None,
    power: Annotated[
        float, typer.Option(metavar="X", help="Weight = score to this power.")
    ] = 1.0,
    floor: Annotated[
        float,
        typer.Option(metavar="X", help="Least weight, as a multiple of the mean."),
    ] = 0.05,
    cap: Annotated[
        float | None,
        typer.Option(metavar="X", help="Largest weight, as a multiple of the mean."),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Mean 1 under its training density. (default: cosine, or the diagnosis' own)"),
    ] = None,
    schedule_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Argument of the schedule; may be repeated.")
    ] = None,
    normalise: Annotated[bool, typer.Option(help="Bring the mean to 1; off leaves the rule's own scale.")] = True,
    list_rules: Annotated[bool, typer.Option("--list", help="List the rules and stop.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Save it as .csv or .json.")] = None,
    force: Force = False,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a table of loss weights over log-SNR, from a rule or from a measurement.

    \b
    Examples:
      ntkdiag weights --rule min_snr --option gamma=5 --target v --out min_snr.csv
      ntkdiag weights --from runs/mine --score bayes --out bayes.csv
    """
    if list_rules:
        _list(json)
        return
    outputs.check_file(out, force, (".csv", ".json"))
    path = _schedule(schedule, schedule_option)
    if source is not None and rule is None:
        table = _measured(source, score or "bayes", path, power, floor, cap)
    elif rule is not None and source is None:
        table = _closed_form(rule, target, path, clip, normalise, parsing.pairs("--option", option))
    else:
        raise InputError("weights", expected="one of --rule NAME, --from DIAGNOSIS and --list",
                         got="none" if rule is None else "two")  # fmt: skip
    if out is not None:
        table.save(outputs.make_parent(out))
    _show(table, out, json)


def _closed_form(
    rule: str,
    target: str | None,
    schedule: Schedule | None,
    clip: float | None,
    normalise: bool,
    options: dict[str, Any],
) -> WeightTable:
    from ntkdiag.process import schedules
    from ntkdiag.process.target import TARGETS
    from ntkdiag.weights import rule as make

    if target is None:
        raise InputError("--target", expected="one of " + ", ".join(TARGETS), got="nothing")
    for name in ("schedule", "clip", "normalise"):
        if name in options:
            raise InputError(
                "--option", expected=f"the rule's own parameters; {name} has an option of its own", got=name
            )
    return make(rule, target, schedule or schedules.cosine(), clip=clip, normalise=normalise, **options)


def _measured(
    source: Path, score: str, schedule: Schedule | None, power: float, floor: float, cap: float | None
) -> WeightTable:
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.process import schedules
    from ntkdiag.weights import measured

    diagnosis = Diagnosis.load(source)
    path = schedule or schedules.named(**diagnosis.meta["config"]["schedule"])
    return measured(diagnosis, score, power=power, floor=floor, cap=cap, schedule=path)


def _schedule(name: str | None, options: list[str] | None) -> Schedule | None:
    from ntkdiag.process import schedules

    parameters = parsing.pairs("--schedule-option", options)
    if name is None and parameters:
        raise InputError("--schedule-option", expected="--schedule beside it", got="none")
    return None if name is None else schedules.named(name, **parameters)


def _show(table: WeightTable, out: Path | None, as_json: bool) -> None:
    columns = {name: column.tolist() for name, column in table.columns.items()}
    if as_json:
        about = {"name": table.name, "target": table.target, "meta": dict(table.meta)}
        print_json({**about, **columns, "written": None if out is None else str(out)})
        return
    from ntkdiag.cli.tables import weight_text

    say(weight_text(table))
    if out is not None:
        say(f"\nWritten: {out}")


def _list(as_json: bool) -> None:
    from ntkdiag.weights import RULES

    rows: list[dict[str, Any]] = [
        {
            "rule": rule.name,
            "formula": rule.text,
            "parameters": {name: parameter.default for name, parameter in rule.parameters.items()},
        }
        for rule in RULES.values()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        told = ", ".join(f"{key}={value}" for key, value in row["parameters"].items())
        say(f"{row['rule']:<18}{row['formula']:<52}{told}".rstrip())

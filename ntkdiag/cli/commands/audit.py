"""`ntkdiag audit`: which rule a weight function is, and which mistakes it makes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli.commands.weights import make_schedule
from ntkdiag.cli.inputs.functions import find_function
from ntkdiag.cli.options import parsing
from ntkdiag.cli.options.choices import ARGUMENTS, RULES, SCHEDULES, TARGETS, one_of
from ntkdiag.cli.options.shared import ForceFile, Json, ScheduleOption
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.weights.audit import Audit

_TABLES = (".csv", ".json")
# Exit code where a mistake was found.
_MISTAKE = 1


def audit(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION|FILE",
            help="A function of yours, package.module:function or file.py:function, from a batch to its weights; or a "
            "weight table, .csv or .json.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="that of the table, if a table is given",
            help="What the network predicts. " + one_of(TARGETS),
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The rule that the function is meant to be. " + one_of(RULES)),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A parameter that the rule is meant to have, such as gamma=5. May be repeated.",
        ),
    ] = None,
    argument: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="snr",
            help="What the function takes; sigma is the noise level σ/α, and timesteps are those of --schedule. "
            + one_of(ARGUMENTS),
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The schedule that is trained on; noise levels are drawn from its density. "
            + one_of(SCHEDULES),
        ),
    ] = None,
    schedule_option: ScheduleOption = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the curve as .csv, or the whole audit as .json."),
    ] = None,
    force: ForceFile = False,
    json: Json = False,
) -> None:
    """Find out which rule a weight function equals, how it differs, and which known mistakes it makes.

    The exit code is 1 if a mistake was found.

    \b
    Examples:
      ntkdiag audit my_training:snr_weight --target v --rule min_snr --option gamma=5
      ntkdiag audit weights.csv --schedule linear_beta
    """
    paths.check_file(out, force, _TABLES)
    path = make_schedule(schedule, schedule_option)
    is_table = Path(weights).suffix.lower() in _TABLES
    if is_table and argument is not None:
        raise InputError("--argument", expected="nothing beside a table, which goes by log-SNR", got=argument)
    examined: Any = weights if is_table else find_function(_function(weights))
    parameters = parsing.rule_parameters("--option", option)

    from ntkdiag.weights.audit import audit as audit_weights

    found = parsing.checked(
        "--option",
        lambda: audit_weights(
            examined, target, rule=rule, argument=argument or "snr", schedule=path, **parameters
        ),
    )
    if out is not None:
        _write(found, out)
    if json:
        print_json({**found.describe(), "written": out})
    else:
        _print(found, out)
    if not found.ok:
        raise typer.Exit(_MISTAKE)


def _function(text: str) -> str:
    module, _, name = text.rpartition(":")
    if not (module and name):
        raise InputError(
            "weights",
            expected="package.module:function, file.py:function, or a .csv or .json file",
            got=repr(text),
        )
    return text


def _write(found: Audit, out: Path) -> None:
    from ntkdiag import provenance

    with provenance.made_parent(out):
        if out.suffix.lower() == ".csv":
            provenance.write_text(out, found.curve.to_csv(index=False))
        else:
            provenance.write_json(out, {**found.describe(), "versions": provenance.versions()})


def _print(found: Audit, out: Path | None) -> None:
    from ntkdiag.cli.output.tables import text_width
    from ntkdiag.cli.output.text_plot import text_plot

    head, about, *findings = str(found).splitlines()
    say(head)
    drawing = text_plot(found.curve["log_snr"].tolist(), found.curve["weight"].tolist())
    say(f"\n{drawing}\n" if drawing else "")
    say(about)
    for line in findings:
        say("\n".join(textwrap.wrap(line, text_width(), initial_indent="  ", subsequent_indent="      ")))
    if out is not None:
        say(f"\nWritten: {out}")

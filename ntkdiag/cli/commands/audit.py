"""`ntkdiag audit`: what a weight function really computes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli.commands.weights import make_schedule
from ntkdiag.cli.inputs.recipe import find_function
from ntkdiag.cli.options import parsing
from ntkdiag.cli.options.shared import Json
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import say
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.weights.audit import Audit

_TABLES = (".csv", ".json")
# Exit code where a mistake was found: that of everything that was asked for and failed.
_MISTAKE = 1


def audit(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION|FILE",
            help="A function of yours, from a batch to its weights; or a weight table, .csv or .json.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the network predicts: epsilon, x0, v, score, flow, F. (default: a table's own)",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The rule it is meant to be; see 'ntkdiag weights --list'."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter the rule is meant to have; may be repeated."),
    ] = None,
    argument: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the function takes: snr, log_snr, sigma (the noise level σ/α), or timesteps of the schedule. "
            "(default: snr)",
        ),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(metavar="NAME", help="What is trained on; its density is what is sampled.")
    ] = None,
    schedule_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Argument of the schedule; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the curve as .csv, or all of it as .json.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    json: Json = False,
) -> None:
    """Say which rule a weight function equals, how it differs, and which known mistakes it makes.

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
    subject: Any = weights if is_table else find_function(_function(weights))
    parameters = parsing.pairs("--option", option)
    for name in ("weights", "target", "rule", "argument", "schedule"):
        if name in parameters:
            raise InputError("--option", expected="parameters of the rule", got=repr(name))

    from ntkdiag.weights.audit import audit as examine

    found = parsing.checked(
        "--option",
        lambda: examine(subject, target, rule=rule, argument=argument or "snr", schedule=path, **parameters),
    )
    if out is not None:
        _write(found, out)
    if json:
        print_json({**found.describe(), "written": None if out is None else str(out)})
    else:
        _tell(found, out)
    if not found.ok:
        raise typer.Exit(_MISTAKE)


def _function(text: str) -> str:
    module, colon, name = text.partition(":")
    if not (colon and module and name):
        raise InputError(
            "weights", expected="package.module:function, or a .csv or .json file", got=repr(text)
        )
    return text


def _write(found: Audit, out: Path) -> None:
    from ntkdiag import provenance

    path = paths.make_parent(out)
    if out.suffix.lower() == ".csv":
        provenance.write_text(path, found.curve.to_csv(index=False))
    else:
        provenance.write_json(path, found.describe())


def _tell(found: Audit, out: Path | None) -> None:
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

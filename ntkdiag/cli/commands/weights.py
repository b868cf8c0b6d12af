"""`ntkdiag weights`: a weight table, from a rule or from a measurement."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ntkdiag.cli.options import parsing
from ntkdiag.cli.options.choices import RULES, SCHEDULES, SCORES, one_of
from ntkdiag.cli.options.grouping import grouped, refuse_given
from ntkdiag.cli.options.shared import ForceFile, Json, ScheduleOption, Target
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.errors import InputError

if TYPE_CHECKING:
    from ntkdiag.process.schedules.base import Schedule
    from ntkdiag.weights import WeightTable


_TABLES, _STEPS = (".csv", ".json"), (".npy", ".safetensors")


@dataclass(frozen=True)
class RuleOptions:
    """A closed form."""

    TITLE: ClassVar[str] = "Weights from a rule"

    rule: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The rule; --list shows formulas and parameters. " + one_of(RULES)),
    ] = None
    target: Target = None
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A parameter of the rule, such as gamma=5. May be repeated."),
    ] = None
    clip: Annotated[
        float | None,
        typer.Option(metavar="X", help="Largest weight of the rule, applied before normalisation."),
    ] = None
    normalise: Annotated[
        bool, typer.Option(help="Scale the weights to mean 1, or leave the rule's own scale.")
    ] = True


@dataclass(frozen=True)
class ScoreOptions:
    """A measurement."""

    TITLE: ClassVar[str] = "Weights from a measurement"

    score: Annotated[
        str,
        typer.Option(
            metavar="NAME[*NAME...]",
            help="What the weights follow: a score of the diagnosis, or a product of scores such as bayes*gsnr. "
            + one_of(SCORES),
        ),
    ] = "bayes"
    power: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Weight ∝ amplitude^X; of a share of variance or energy (bayes, gsnr, …) the amplitude is √share.",
        ),
    ] = 1.0
    floor: Annotated[
        float, typer.Option(metavar="X", help="Smallest weight, as a multiple of the mean over buckets.")
    ] = 0.05
    cap: Annotated[
        float | None,
        typer.Option(metavar="X", help="Largest weight, as a multiple of the mean over buckets."),
    ] = None
    bandwidth: Annotated[
        float,
        typer.Option(
            metavar="X", help="Width of the smoothing over log-SNR, in units of log-SNR; 0 leaves it out."
        ),
    ] = 0.0
    precision: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Refuse weights whose intervals reach further than this to either side, as a share of the weight "
            "(of the mean weight where that is larger); inf accepts any.",
        ),
    ] = 0.5


@grouped
def weights(
    rule: RuleOptions,
    measured: ScoreOptions,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="DIAGNOSIS",
            help="Make weights from this measurement, a folder written by 'ntkdiag measure --out'.",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="cosine, or the schedule of the diagnosis",
            help="The schedule that is trained on; the weights have mean 1 under its density. "
            + one_of(SCHEDULES),
        ),
    ] = None,
    schedule_option: ScheduleOption = None,
    list_rules: Annotated[bool, typer.Option("--list", help="List the rules, and make no table.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save the table as .csv or .json, or as .npy or .safetensors with a weight for each step of a "
            "discrete schedule.",
        ),
    ] = None,
    force: ForceFile = False,
    json: Json = False,
) -> None:
    """Make a table of loss weights over log-SNR, from a rule or from a measurement.

    \b
    Examples:
      ntkdiag weights --rule min_snr --option gamma=5 --target v --out min_snr.csv
      ntkdiag weights --from runs/mine --score bayes --out bayes.csv
      ntkdiag weights --rule erd --target v --schedule linear_beta --out steps.npy
    """
    if list_rules:
        _list(json)
        return
    paths.check_file(out, force, (*_TABLES, *_STEPS))
    if rule.rule is None and source is None:
        raise InputError("weights", expected="--rule NAME, --from DIAGNOSIS or --list", got="none of them")
    if source is None:
        refuse_given((measured,), "beside --rule, which measures nothing")
        table, path = _closed_form(rule, make_schedule(schedule, schedule_option))
    else:
        refuse_given((rule,), "beside --from, which is a measurement")
        table, path = _measured(source, measured, make_schedule(schedule, schedule_option))
    if out is not None:
        _save(table, path, out)
    _show(table, out, json)


def _closed_form(options: RuleOptions, schedule: Schedule | None) -> tuple[WeightTable, Schedule]:
    """The table, and the schedule it is for."""
    from ntkdiag.cli.inputs.weighting import closed_form
    from ntkdiag.process import schedules
    from ntkdiag.process.target import TARGETS

    if options.target is None:
        raise InputError("--target", expected="one of " + ", ".join(TARGETS), got="nothing")
    settings = {"clip": options.clip, "normalise": options.normalise}
    settings |= parsing.rule_parameters("--option", options.option)
    path = schedule or schedules.cosine()
    return closed_form("--option", str(options.rule), options.target, path, settings), path


def _measured(source: Path, options: ScoreOptions, schedule: Schedule | None) -> tuple[WeightTable, Schedule]:
    """The table, and the schedule it is for."""
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.process import schedules
    from ntkdiag.weights import measured

    diagnosis = Diagnosis.load(source)
    path = schedule or schedules.named(**diagnosis.meta["config"]["schedule"])
    return measured(diagnosis, **asdict(options), schedule=path), path


def _save(table: WeightTable, schedule: Schedule, out: Path) -> None:
    from ntkdiag import provenance
    from ntkdiag.weights import save_steps

    with provenance.made_parent(out):
        if out.suffix.lower() in _TABLES:
            table.save(out)
        else:
            save_steps(table, schedule, out)


def make_schedule(name: str | None, options: list[str] | None) -> Schedule | None:
    """The schedule of --schedule and --schedule-option; None without them.

    Raises:
        InputError: an unknown name, or options that do not fit it.
    """
    from ntkdiag.process import schedules

    parameters = parsing.pairs("--schedule-option", options)
    if name is None and parameters:
        raise InputError("--schedule-option", expected="--schedule together with it", got="no schedule")
    if name is None:
        return None
    return parsing.checked("--schedule-option", lambda: schedules.named(name, **parameters))


def _show(table: WeightTable, out: Path | None, as_json: bool) -> None:
    columns = {name: column.tolist() for name, column in table.columns.items()}
    if as_json:
        about = {"name": table.name, "target": table.target, "meta": dict(table.meta)}
        print_json({**about, **columns, "written": out})
        return
    from ntkdiag.cli.output.tables import weight_text

    say(weight_text(table))
    if table.meta.get("extrapolated"):
        count, rows = len(table.meta["extrapolated"]), len(table.weight)
        note(f"note: {count} of {rows} rows are from noise levels that the network never saw in training")
    say("\n" + _text_plot(table))
    if out is not None:
        say(f"\nWritten: {out}")


def _text_plot(table: WeightTable) -> str:
    import torch

    from ntkdiag.cli.output.text_plot import text_plot

    low, high = max(table.log_snr[0].item(), -15.0), min(table.log_snr[-1].item(), 15.0)
    if not low < high:  # a table that lies outside is shown as a whole
        low, high = table.log_snr[0].item(), table.log_snr[-1].item()
    levels = torch.linspace(low, high, 61, dtype=torch.float64)
    return text_plot(levels.tolist(), table(levels).tolist())


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
        parameters = ", ".join(f"{key}={value}" for key, value in row["parameters"].items())
        say(f"{row['rule']:<18}{row['formula']:<52}{parameters}".rstrip())

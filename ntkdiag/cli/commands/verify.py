"""`ntkdiag verify`: what a measurement says about a network, in plain words, and its numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ntkdiag.cli.commands.measure import diagnose
from ntkdiag.cli.inputs.launched import is_one_of_several, of_first
from ntkdiag.cli.inputs.step_range import of_run, stored
from ntkdiag.cli.options.choices import LEVELS, one_of
from ntkdiag.cli.options.grouping import grouped, refuse_given
from ntkdiag.cli.options.shared import Force, Json, MeasureOptions, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.cli.output.unfinished import unfinished
from ntkdiag.errors import InputError, require_int

if TYPE_CHECKING:
    from ntkdiag.claims import RecipeVerification, Verification
    from ntkdiag.claims.levels import Level
    from ntkdiag.claims.verification import StepRange
    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.diagnosis import Diagnosis
    from ntkdiag.provenance import KeptParts

# What a folder that was measured here is called among several.
_OWN = "measured"


@grouped
def verify(
    model: ModelOptions,
    how: MeasureOptions,
    source: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="DIAGNOSIS",
            help="Answer from this folder of 'ntkdiag measure --out' instead of measuring a network. May be repeated.",
        ),
    ] = None,
    recipe: Annotated[
        bool,
        typer.Option(
            "--recipe",
            help="The folders of --from are training seeds of one recipe, at least 5: verdicts on the recipe instead of an "
            "answer for each network. Recipes of several targets, with the same seeds in the same order, decide C3.",
        ),
    ] = False,
    level: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="standard",
            help="How much to measure: samples, probes, untrained networks and noise levels, unless they are given. Of a "
            "large network quick measures less, in minutes, and so says less. " + one_of(LEVELS),
        ),
    ] = None,
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="What 'ntkdiag drift --out' wrote of the network's training run: the answer then says how many of the next "
            "training steps the kernel describes. Of a training folder it is measured.",
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
    """Say whether a network's kernel collapses, at which noise levels, and whether training did it.

    The plain answer comes first, then a word for each statistic and end of the range: falls, rises, absent or cannot
    say. The exit code is 0 whatever they are. With --out, a measurement that was interrupted or killed goes on when the
    same command is given again. Started by torchrun, processes share the samples; the first one prints and writes.

    \b
    Examples:
      ntkdiag verify --model runs/erd --level quick
      ntkdiag verify --from runs/mine --out runs/mine-verdicts
      ntkdiag verify --recipe --from s0 --from s1 --from s2 --from s3 --from s4
    """
    paths.check_folder(out, force)
    if recipe and not source:
        raise InputError(
            "--recipe", expected="--from, a folder for each training seed, beside it", got="none"
        )
    if trust is not None and len(source or ()) > 1:
        raise InputError("--trust", expected="one network", got=f"{len(source or ())} folders of --from")
    steps = stored(trust)
    if not source:
        _verify_measured(model, how, level, steps, of_first(out), force, json)
        return
    if is_one_of_several():
        raise InputError(
            "torchrun", expected="a network to measure", got="--from", fix="Start it without torchrun."
        )
    refuse_given((model, how), "beside --from, which measures nothing")
    if level is not None:
        raise InputError("--level", expected="nothing beside --from, which measures nothing", got=level)

    from ntkdiag.claims import verify as answer
    from ntkdiag.diagnosis import Diagnosis

    if recipe:
        _refuse_twice(source)
    diagnoses = {str(folder): Diagnosis.load(folder) for folder in source}
    if recipe:
        _say_recipe(answer(diagnoses, recipe=True), out, force, json)
        return
    found = {name: answer(diagnosis, trust=steps) for name, diagnosis in diagnoses.items()}
    if out is not None:
        _write(out, force, found, None)
    _say(found, out, json)


def _verify_measured(
    model: ModelOptions,
    how: MeasureOptions,
    level: str | None,
    steps: StepRange | None,
    out: Path | None,
    force: bool,
    json: bool,
) -> None:
    """Measure a network, and answer."""
    with unfinished(out) as kept:
        measured = _measure(model, how, level, kept, bars=not json)
        if steps is None:
            steps = of_run(
                Path(model.model or ""), model.device, len(measured.summary), model.seed, bars=not json
            )

        from ntkdiag.claims import verify as answer
        from ntkdiag.claims.verification import STEP_RANGE

        if steps is not None:
            measured.meta[STEP_RANGE] = steps.step_range
        found = {_OWN: answer(measured)}
        if out is not None:
            _write(out, force, found, measured)
    _say(found, out, json)


def _say(found: dict[str, Verification], out: Path | None, json: bool) -> None:
    if json:
        print_json(_document(found) | {"written": out})
        return
    from ntkdiag.cli.output.verdicts import verification_text

    for name, one in found.items():
        say(verification_text(one, name if len(found) > 1 else ""))
    if out is not None:
        say(f"\nWritten: {out}")


def _say_recipe(found: RecipeVerification, out: Path | None, force: bool, json: bool) -> None:
    """Write and print the verdicts on a recipe."""
    from ntkdiag import provenance
    from ntkdiag.cli.output.json_document import plain
    from ntkdiag.cli.output.verdicts import recipe_text

    document = {"format": 1, "versions": provenance.versions(), **found.document()}
    if out is not None:
        with provenance.run_folder(out, force) as building:
            provenance.write_text(building / "verdicts.csv", found.claims.to_csv(index=False))
            provenance.write_text(building / "slopes.csv", found.slopes.to_csv(index=False))
            provenance.write_json(building / "verdicts.json", plain(document))
    if json:
        print_json(document | {"written": out})
        return
    say(recipe_text(found))
    if out is not None:
        say(f"\nWritten: {out}")


def _refuse_twice(source: list[Path]) -> None:
    """One folder given twice would be read once, and one seed be missing without a word."""
    seen = set[Path]()
    for folder in source:
        if folder.resolve() in seen:
            raise InputError("--from", expected="each training seed once", got=f"{folder} twice")
        seen.add(folder.resolve())


def _measure(
    model: ModelOptions, how: MeasureOptions, level: str | None, kept: KeptParts | None, bars: bool
) -> Diagnosis:
    """Measure as much as the level says, where the user gave no number."""
    from ntkdiag.claims.effects import MIN_SAMPLES
    from ntkdiag.claims.ends import MIN_BUCKETS
    from ntkdiag.claims.levels import STANDARD

    if how.samples is not None:
        require_int("--samples (for intervals)", how.samples, at_least=MIN_SAMPLES)
    return diagnose(
        model,
        how,
        bars=bars,
        least_buckets=MIN_BUCKETS,
        level=STANDARD if level is None else level,
        say_cost=_say_cost,
        kept=kept,
    )


def _say_cost(loaded: LoadedModel, sizes: Level) -> None:
    """Before a measurement starts: what it costs, in units that the user knows."""
    from ntkdiag.claims.levels import training_steps
    from ntkdiag.diagnosis.work import seconds_of_pass

    probes = min(sizes.probes, math.prod(loaded.data.shape))
    steps = training_steps(1 + sizes.controls, sizes.buckets, sizes.samples, probes)
    seconds = seconds_of_pass(loaded.denoiser, loaded.data)
    took = "" if seconds is None else f", {_about(replace(sizes, probes=probes).passes * seconds)} here"
    who = "1 network" if sizes.controls == 0 else f"{1 + sizes.controls} networks"
    note(
        f"note: {who} at {sizes.buckets} noise levels with {sizes.samples} samples and {probes} probes cost about as much "
        f"as {steps:,} training steps of batch 128{took}"
    )


def _about(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 60:
        return "less than a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"


def _document(found: dict[str, Verification]) -> dict[str, Any]:
    """What is printed and written: of one network its own document, of several one each."""
    from ntkdiag import provenance

    documents = {name: one.document() for name, one in found.items()}
    alone = next(iter(documents.values())) if len(documents) == 1 else {"networks": documents}
    return {"format": 1, "versions": provenance.versions(), **alone}


def _write(out: Path, force: bool, found: dict[str, Verification], measured: Diagnosis | None) -> None:
    import pandas as pd

    from ntkdiag import provenance
    from ntkdiag.cli.output.json_document import plain

    tables = [one.claims.assign(network=name) for name, one in found.items()]
    table = pd.concat([one[["network", *one.columns.drop("network")]] for one in tables], ignore_index=True)
    with provenance.run_folder(out, force) as building:
        provenance.write_text(building / "verdicts.csv", table.to_csv(index=False))
        provenance.write_json(building / "verdicts.json", plain(_document(found)))
        if measured is not None:
            measured.save(building / "diagnosis")

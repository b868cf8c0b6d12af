"""`ntkdiag measure`: the kernel of a network in each log-SNR bucket."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ntkdiag.cli.inputs.launched import of_first
from ntkdiag.cli.options.choices import KERNELS
from ntkdiag.cli.options.grouping import grouped, refuse_given
from ntkdiag.cli.options.shared import Force, Json, MeasureOptions, ModelOptions
from ntkdiag.cli.output import paths
from ntkdiag.cli.output.json_document import print_json
from ntkdiag.cli.output.messages import note, say
from ntkdiag.cli.output.unfinished import unfinished
from ntkdiag.errors import InputError, require_int, require_one_of, require_positive_int
from ntkdiag.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ntkdiag.claims import ByClass
    from ntkdiag.claims.levels import Level
    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.diagnosis import Diagnosis, FullSettings
    from ntkdiag.provenance import KeptParts


@dataclass(frozen=True)
class FullOptions:
    """Whether the full kernel is measured too, and what is spent on it; None where the user said nothing."""

    TITLE: ClassVar[str] = "Full kernel"

    kernel: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which kernel to measure: trace, the kernel summed over outputs, or full, which adds the kernel of "
            "every single output, computed without forming it. The full kernel takes minutes on images, and twice "
            "that with --controls, of which the first gets it too.",
        ),
    ] = "trace"
    top_k: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="16",
            help="Number of eigenfunctions of the full kernel to compute in each bucket.",
        ),
    ] = None
    slq: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="6",
            help="Number of random vectors for the spectral density and the effective rank of the full kernel "
            "(stochastic Lanczos quadrature); 0 leaves both out.",
        ),
    ] = None


@grouped
def measure(
    model: ModelOptions,
    how: MeasureOptions,
    full: FullOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Save the diagnosis to this folder, which plot, report and verify read."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Also show results for each class of the samples: label. They are written beside the diagnosis as "
            "by_class.csv, between_classes.csv and class_ends.csv. Ten classes need 160 samples or more.",
        ),
    ] = None,
    plan: Annotated[
        int | None,
        typer.Option(
            metavar="PROCESSES",
            min=1,
            help="Print what the measurement would cost each of so many processes, 1 without torchrun, and stop: "
            "operations, bytes exchanged, memory and time, for which a little of it is measured here in about a second.",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure a network's tangent kernel in each log-SNR bucket: its strength, effective rank and recoverability.

    Two measurements are comparable only if --buckets, --samples and --seed are equal. With --out, a measurement that was
    interrupted or killed goes on when the same command is given again. Started by torchrun, processes share the samples;
    the first one prints and writes.

    \b
    Examples:
      ntkdiag measure --model runs/erd --out runs/erd-measured
      torchrun --nproc-per-node 2 -m ntkdiag measure --model runs/erd --out runs/erd-measured
      ntkdiag measure --model file.py:function --checkpoint net.pt \\
          --data images.npy --target epsilon --schedule linear_beta --out runs/mine
      ntkdiag measure --model runs/erd --kernel full --top-k 8 --samples 16 --out runs/erd-full
      ntkdiag measure --model runs/erd --engine sketch --samples 1000 --out runs/erd-many
      ntkdiag measure --model runs/classes --by label --samples 160 --out runs/by-class
    """
    paths.check_folder(out, force)
    out = of_first(out)
    if by is not None:
        require_one_of("--by", by, ("label",))
    settings = full_settings(full)
    if plan is not None:
        unused = [name for name, value in (("--out", out), ("--by", by)) if value is not None]
        _say_plan(model, how, plan, settings, unused, json)
        return
    with unfinished(out) as kept:
        diagnosis = diagnose(model, how, bars=not json, full=settings, kept=kept)
        classes = None if by is None else _by_class(diagnosis)
        if out is not None:
            diagnosis.save(out, force)
            if classes is not None:
                _write_classes(classes, out)
    if json:
        print_json(document(diagnosis) | _classes_document(classes) | {"written": out})
        return
    from ntkdiag.cli.output.tables import class_text, full_text, summary_text

    say(summary_text(diagnosis))
    if classes is not None:
        say("\n" + class_text(classes))
    if diagnosis.full is not None:
        say("\n" + full_text(diagnosis))
    if out is None:
        note("Nothing was written; --out FOLDER keeps the diagnosis.")
    else:
        say(f"\nWritten: {out}   (next: ntkdiag report {out} --out page.html)")


def _say_plan(
    model: ModelOptions,
    how: MeasureOptions,
    processes: int,
    full: FullSettings | None,
    unused: list[str],
    json: bool,
) -> None:
    """Print what the measurement would cost."""
    if full is not None or unused:
        got = unused[0] if unused else "--kernel full"
        raise InputError("--plan", expected="nothing beside it that it does not count or write", got=got)
    from ntkdiag.cli.inputs.asked import what_is_asked
    from ntkdiag.cli.output.plan_text import plan_text
    from ntkdiag.diagnosis.plan import plan

    asked = what_is_asked(model, how)
    found = plan(
        asked.loaded.denoiser,
        asked.loaded.data,
        len(asked.buckets),
        samples=asked.sizes.samples,
        probes=asked.sizes.probes,
        engine=how.engine,
        params=how.params,
        processes=processes,
        networks=1 + asked.sizes.controls,
        memory=asked.memory,
        **asked.sketch,
    )
    if json:
        parts = found.table.to_dict("records")
        print_json(
            {"processes": processes, "parts": parts, "whole": found.whole, "left_out": list(found.left_out)}
        )
        return
    say(plan_text(found))


def _by_class(diagnosis: Diagnosis) -> ByClass:
    from ntkdiag.claims import by_class

    return by_class(diagnosis)


def _write_classes(classes: ByClass, out: Path) -> None:
    from ntkdiag.provenance import write_text

    tables = {"by_class": classes.classes, "between_classes": classes.between, "class_ends": classes.ends}
    for name, table in tables.items():
        write_text(out / f"{name}.csv", table.to_csv(index=False))


def _classes_document(classes: ByClass | None) -> dict[str, Any]:
    if classes is None:
        return {}
    tables = {"classes": classes.classes, "between": classes.between, "ends": classes.ends}
    rows = {name: table.to_dict("records") for name, table in tables.items()}
    return {"by_class": rows | {"first": classes.first}}


def full_settings(options: FullOptions) -> FullSettings | None:
    """The settings of --kernel, --top-k and --slq; None for the trace kernel alone.

    Raises:
        InputError: an unknown kernel, a number out of range, or an option that would be ignored.
    """
    if require_one_of("--kernel", options.kernel, KERNELS) == "trace":
        refuse_given((options,), "beside --kernel trace")
        return None
    given: dict[str, int] = {}
    if options.top_k is not None:
        given["top_k"] = require_positive_int("--top-k", options.top_k)
    if options.slq is not None:
        given["quadrature_vectors"] = require_int("--slq", options.slq, at_least=0)

    from ntkdiag.diagnosis import FullSettings

    return FullSettings(**given)


def diagnose(
    model: ModelOptions,
    how: MeasureOptions,
    bars: bool,
    least_buckets: int = 1,
    full: FullSettings | None = None,
    level: str | None = None,
    say_cost: Callable[[LoadedModel, Level], None] | None = None,
    kept: KeptParts | None = None,
) -> Diagnosis:
    """Load the network and the data that the options name, and measure it.

    Args:
        model, how: The options.
        bars: Whether to show progress.
        least_buckets: Smallest number of buckets that is accepted.
        full: Settings of the full kernel; None leaves it out.
        level: Says samples, probes, controls and buckets where the user gave none; those of `measure` if None.
        say_cost: Called before it starts with what is measured and how much of it.
        kept: Where finished parts are kept, and those of an interrupted run are taken from.

    Raises:
        InputError: an option is wrong; nothing has been measured then.
        MeasurementError: the network returns numbers that are not finite.
    """
    from ntkdiag.cli.inputs.launched import joined

    with joined(model) as (own, processes):
        return _diagnose(own, how, bars, least_buckets, full, level, say_cost, kept, processes is not None)


def _diagnose(
    model: ModelOptions,
    how: MeasureOptions,
    bars: bool,
    least_buckets: int,
    full: FullSettings | None,
    level: str | None,
    say_cost: Callable[[LoadedModel, Level], None] | None,
    kept: KeptParts | None,
    distributed: bool,
) -> Diagnosis:
    """`diagnose`, by one process or by each of several."""
    from ntkdiag.cli.inputs.asked import what_is_asked
    from ntkdiag.cli.inputs.loading_notes import notes_on
    from ntkdiag.diagnosis import measure as measure_network
    from ntkdiag.diagnosis.controls import WOKEN

    asked = what_is_asked(model, how, level, least_buckets, kept, bars)
    loaded, buckets, sizes = asked.loaded, asked.buckets, asked.sizes
    controls, woken = loaded.controls(sizes.controls)
    if say_cost is not None:
        say_cost(loaded, replace(sizes, controls=len(controls)))
    with progress_bar(bars) as progress:
        diagnosis = measure_network(
            loaded.denoiser,
            loaded.data,
            buckets,
            samples=sizes.samples,
            probes=sizes.probes,
            seed=model.seed,
            refs=controls,
            engine=how.engine,
            check=how.check,
            params=how.params,
            memory=asked.memory,
            name="trained" if loaded.trained else "given",
            full=full,
            held_out_unseen=how.held_out_unseen or loaded.held_out_unseen,
            progress=progress,
            extrapolate=how.extrapolate,
            resume=kept,
            distributed=distributed,
            **asked.sketch,
        )
    if loaded.weights is not None:
        diagnosis.meta["network"]["weights"] = asdict(loaded.weights)
    diagnosis.meta[WOKEN] = list(woken)
    for text in notes_on(loaded, controls_missing=sizes.controls > 0 and not controls, woken=woken):
        note(text)
    return diagnosis


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """What --json prints of a diagnosis."""
    controls = {name: reference.summary.to_dict("records") for name, reference in diagnosis.refs.items()}
    found = {"meta": diagnosis.meta, "summary": diagnosis.summary.to_dict("records"), "refs": controls}
    if diagnosis.full is not None:
        found["full"] = {
            name: getattr(diagnosis.full, name).to_dict("records") for name in ("summary", "spectra")
        }
    return found

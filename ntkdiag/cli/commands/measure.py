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
    from ntkdiag.claims.levels import DEFAULT_SIZES, level_named
    from ntkdiag.cli.inputs.loading import load, notes_on
    from ntkdiag.cli.options import parsing
    from ntkdiag.diagnosis import measure as measure_network
    from ntkdiag.diagnosis.controls import WOKEN

    most = DEFAULT_SIZES if level is None else level_named(level)
    for name in ("probes", "samples"):
        if getattr(how, name) is not None:
            require_positive_int(f"--{name}", getattr(how, name))
    if how.controls is not None:
        require_int("--controls", how.controls, at_least=0)
    sketch = _sketch(how)
    memory = parsing.size("--memory", how.memory)
    loaded = load(model, how.null_label, how.samples or most.samples, kept, bars)
    path = loaded.denoiser.schedule
    given = None if how.buckets is None else parsing.buckets(how.buckets, how.range, path)
    sizes = _sizes(level, loaded, how, None if given is None else len(given))
    buckets = parsing.buckets(str(sizes.buckets), how.range, path) if given is None else given
    if len(buckets) < least_buckets:
        raise InputError("--buckets", expected=f"at least {least_buckets}, to see a trend", got=len(buckets))
    samples = min(sizes.samples, len(loaded.data.train)) if how.samples is None else how.samples
    controls, woken = loaded.controls(sizes.controls)
    if say_cost is not None:
        say_cost(loaded, replace(sizes, samples=samples, controls=len(controls)))
    with progress_bar(bars) as progress:
        diagnosis = measure_network(
            loaded.denoiser,
            loaded.data,
            buckets,
            samples=samples,
            probes=sizes.probes,
            seed=model.seed,
            refs=controls,
            engine=how.engine,
            check=how.check,
            params=how.params,
            memory=memory,
            name="trained" if loaded.trained else "given",
            full=full,
            held_out_unseen=how.held_out_unseen or loaded.held_out_unseen,
            progress=progress,
            extrapolate=how.extrapolate,
            resume=kept,
            distributed=distributed,
            **sketch,
        )
    if loaded.weights is not None:
        diagnosis.meta["network"]["weights"] = asdict(loaded.weights)
    diagnosis.meta[WOKEN] = list(woken)
    for text in notes_on(loaded, controls_missing=sizes.controls > 0 and not controls, woken=woken):
        note(text)
    return diagnosis


def _sizes(level: str | None, loaded: LoadedModel, how: MeasureOptions, buckets: int | None) -> Level:
    """What the user gave, and for the rest what the level says."""
    from ntkdiag.claims.levels import DEFAULT_SIZES, QUICK, fitting
    from ntkdiag.diagnosis.work import forward_operations

    given = {"samples": how.samples, "probes": how.probes, "controls": how.controls, "buckets": buckets}
    if level is None:
        known = {name: value for name, value in given.items() if value is not None}
        return replace(DEFAULT_SIZES, **known)
    operations = forward_operations(loaded.denoiser, loaded.data) if level == QUICK else 0
    sizes = fitting(level, operations, **given)
    if sizes != fitting(level, 0, **given):
        note(
            "note: of so large a network quick measures less, so more of the answer will be 'cannot say'; --samples, "
            "--probes and --buckets, or --level standard, measure more"
        )
    return sizes


def _sketch(how: MeasureOptions) -> dict[str, int]:
    """The size of the sketch, where the user gave one."""
    if how.sketch is None:
        return {}
    if how.engine not in ("auto", "sketch"):
        raise InputError("--sketch", expected="--engine sketch beside it", got=f"--engine {how.engine}")
    return {"sketch": require_positive_int("--sketch", how.sketch)}


def document(diagnosis: Diagnosis) -> dict[str, Any]:
    """What --json prints of a diagnosis."""
    controls = {name: reference.summary.to_dict("records") for name, reference in diagnosis.refs.items()}
    found = {"meta": diagnosis.meta, "summary": diagnosis.summary.to_dict("records"), "refs": controls}
    if diagnosis.full is not None:
        found["full"] = {
            name: getattr(diagnosis.full, name).to_dict("records") for name in ("summary", "spectra")
        }
    return found

"""What a measurement is asked for: the network and data, loaded, and how much of it is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ntkdiag.cli.options.shared import MeasureOptions, ModelOptions
from ntkdiag.cli.output.messages import note
from ntkdiag.errors import InputError, require_int, require_positive_int

if TYPE_CHECKING:
    from ntkdiag.claims.levels import Level
    from ntkdiag.cli.inputs.loading import LoadedModel
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.provenance import KeptParts


@dataclass(frozen=True)
class Asked:
    """A measurement.

    Attributes:
        loaded: The network and the data.
        buckets: Its noise levels.
        sizes: Samples, probes and controls.
        memory: Bytes to work in; None takes what is free.
        sketch: The size of the sketch by name, where the user gave one.
    """

    loaded: LoadedModel
    buckets: Buckets
    sizes: Level
    memory: int | None
    sketch: dict[str, int]


def what_is_asked(
    model: ModelOptions,
    how: MeasureOptions,
    level: str | None = None,
    least_buckets: int = 1,
    kept: KeptParts | None = None,
    bars: bool = False,
) -> Asked:
    """Load the network and the data that the options name, and settle how much is measured.

    Args:
        model, how: The options.
        level, least_buckets, kept, bars: As in `diagnose`.

    Raises:
        InputError: an option is wrong.
    """
    from ntkdiag.claims.levels import DEFAULT_SIZES, level_named
    from ntkdiag.cli.inputs.loading import load
    from ntkdiag.cli.options import parsing

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
    return Asked(loaded, buckets, replace(sizes, samples=samples), memory, sketch)


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

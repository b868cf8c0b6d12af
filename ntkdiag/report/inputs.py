"""What a report is made of: a diagnosis, and whatever else is at hand. A `Part` is what one figure draws of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ntkdiag.errors import InputError, kind_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ntkdiag.claims import ByClass, Verification
    from ntkdiag.diagnosis import Diagnosis, FullKernel
    from ntkdiag.report.runs import Runs
    from ntkdiag.trust import Examination

    Weights = Mapping[str, Callable[[Any], Any]]

T = TypeVar("T")


@dataclass(frozen=True)
class ReportInputs:
    """The inputs of a report; all but the diagnosis may be missing.

    Attributes:
        diagnosis: What was measured.
        verdicts: The answer, as `ntkdiag.verify` returns it.
        tables: Name → weight as a function of log-SNR, such as a `WeightTable`.
        runs: Name of a training run → its history (step, loss) or its loss per bucket (bucket, log_snr,
            loss, loss_low, loss_high), or a mapping with both.
        samples: Name → generated samples [N, 1|3, H, W] or [N, 2]; real data is named "data".
        quality: A row a run and metric: run, metric, value, low, high.
        trust: How far to trust the kernel, as `nd.trust.examine` returns it.

    Example:
        >>> from ntkdiag.report.inputs import ReportInputs
        >>> ReportInputs(diagnosis).verdicts is None
        True
    """

    diagnosis: Diagnosis
    verdicts: Verification | None = None
    tables: Weights | None = None
    runs: Runs | None = None
    samples: Mapping[str, np.ndarray] | None = None
    quality: pd.DataFrame | None = None
    trust: Examination | None = None

    def __post_init__(self) -> None:
        require_measured(self.diagnosis)


def require_measured(got: object) -> None:
    """Refuse anything without the tables of a diagnosis.

    Raises:
        InputError: `got` is something else, such as a network.
    """
    if not hasattr(got, "summary"):
        raise InputError(
            "diagnosis",
            expected="a Diagnosis",
            got=kind_of(got),
            fix="Measure a network with nd.measure, or read a folder with nd.Diagnosis.load.",
        )


@dataclass(frozen=True)
class Part(Generic[T]):
    """One part of the inputs, with the type that a figure of it receives.

    Attributes:
        name: As messages call it.
        take: Returns the part, or raises an `InputError` that says how to provide it.

    Example:
        >>> from ntkdiag.report.inputs import DIAGNOSIS, ReportInputs
        >>> DIAGNOSIS.take(ReportInputs(diagnosis)) is diagnosis
        True
    """

    name: str
    take: Callable[[ReportInputs], T]

    def is_given(self, inputs: ReportInputs) -> bool:
        """Whether the inputs contain this part."""
        try:
            self.take(inputs)
        except InputError:
            return False
        return True


def full_kernel_of(diagnosis: Diagnosis) -> FullKernel:
    """The full kernel of a diagnosis.

    Raises:
        InputError: only the trace kernel was measured.
    """
    if diagnosis.full is None:
        raise InputError(
            "full kernel to draw",
            expected="a diagnosis that has it",
            got="the trace kernel alone",
            fix="Measure with --kernel full.",
        )
    return diagnosis.full


def _with_full_kernel(inputs: ReportInputs) -> Diagnosis:
    full_kernel_of(inputs.diagnosis)
    return inputs.diagnosis


def _by_class(inputs: ReportInputs) -> ByClass:
    """Results by class, where there are enough samples of the classes for a word on each."""
    from ntkdiag.claims import by_class  # reports without classes need none of it

    found = by_class(inputs.diagnosis)
    if found.ends.empty:
        raise InputError(
            "results by class",
            expected="8 samples or more of each class, in 3 buckets or more",
            got=f"{int(found.classes['samples'].max())} samples in {found.classes['log_snr'].nunique()}",
            fix="Measure again with {samples}.",
            arguments={"samples": 16 * found.classes["label"].nunique()},
        )
    return found


S = TypeVar("S", bound=Sized)


def _required(part: S | None, name: str) -> S:
    if part is None or len(part) == 0:
        raise InputError(f"{name} to draw", expected=f"{name}=…", got="none")
    return part


def _runs(inputs: ReportInputs) -> Runs:
    return _required(inputs.runs, "runs")


def _samples(inputs: ReportInputs) -> Mapping[str, np.ndarray]:
    return _required(inputs.samples, "samples")


def _quality(inputs: ReportInputs) -> pd.DataFrame:
    return _required(inputs.quality, "quality")


def _trust(inputs: ReportInputs) -> Examination:
    return _required(inputs.trust, "trust")


DIAGNOSIS: Part[Diagnosis] = Part("diagnosis", lambda inputs: inputs.diagnosis)
BY_CLASS: Part[ByClass] = Part("results by class", _by_class)
FULL_KERNEL: Part[Diagnosis] = Part("full kernel", _with_full_kernel)
# Without weight tables, every rule for the target of the diagnosis is drawn.
WEIGHTS: Part[tuple[Diagnosis, Weights | None]] = Part(
    "weights", lambda inputs: (inputs.diagnosis, inputs.tables)
)
RUNS: Part[Runs] = Part("runs", _runs)
SAMPLES: Part[Mapping[str, np.ndarray]] = Part("samples", _samples)
QUALITY: Part[pd.DataFrame] = Part("quality", _quality)
TRUST: Part[Examination] = Part("trust", _trust)

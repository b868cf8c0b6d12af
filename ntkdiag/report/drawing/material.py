"""Everything a report may be made of, checked once; all but the diagnosis may be missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ntkdiag.diagnosis import Diagnosis


@dataclass(frozen=True)
class Material:
    """The parts of a report.

    Attributes:
        diagnosis: What was measured.
        verdicts: A row a claim: claim, statement, verdict, effect, low, high, p_value, p_holm, test, note.
        tables: Name → weight as a function of log-SNR, such as a `WeightTable`.
        runs: Name of a training run → its history (step, loss) or its loss per bucket (bucket, log_snr,
            loss, loss_low, loss_high), or a mapping with both.
        samples: Name → generated samples [N, 1|3, H, W] or [N, 2]; real data is named "data".
        quality: A row a run and metric: run, metric, value, low, high.
    """

    diagnosis: Diagnosis
    verdicts: pd.DataFrame | None = None
    tables: Mapping[str, Callable[[Any], Any]] | None = None
    runs: Mapping[str, Any] | None = None
    samples: Mapping[str, np.ndarray] | None = None
    quality: pd.DataFrame | None = None

    def has(self, name: str) -> bool:
        """Whether the part that a figure draws was handed in."""
        if name in ("diagnosis", "weights"):
            return True
        if name == "full":
            return self.diagnosis.full is not None
        part = getattr(self, name)
        return part is not None and len(part) > 0

    def subject(self, name: str) -> Any:
        """The part that a figure draws.

        Args:
            name: diagnosis, full (of the diagnosis, too), weights, runs, samples or quality.

        Raises:
            InputError: the part is missing.
        """
        if name in ("diagnosis", "full"):
            return self.diagnosis
        if name == "weights":
            return self.diagnosis, self.tables
        if not self.has(name):
            raise InputError(f"{name} to draw", expected=f"{name}=…", got="none")
        return getattr(self, name)

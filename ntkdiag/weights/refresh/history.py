"""Record: one entry in the history of a refresher, which checkpoints carry."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ntkdiag.provenance import jsonable

_SERIES = ("log_snr", "score", "weight")


@dataclass(frozen=True)
class Record:
    """One refresh, or the decision against one.

    Attributes:
        step: Training step after which it ran.
        accepted: Whether the weights were changed.
        reason: Why not; empty if accepted.
        cause: Why it was done: "every", "moved" or "asked".
        cost: Its duration in training steps of average length; 0 where no time is measured.
        log_snr, score: What was measured; empty if nothing was, or if that failed.
        weight: The new weights at that log-SNR; empty if not accepted.

    Example:
        >>> record = nd.weights.Record(step=500, accepted=False, reason="the kernel is not finite")
        >>> record.accepted, record.cause
        (False, 'asked')
    """

    step: int
    accepted: bool
    reason: str = ""
    cause: str = "asked"
    cost: float = 0.0
    log_snr: tuple[float, ...] = ()
    score: tuple[float, ...] = ()
    weight: tuple[float, ...] = ()

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it; `from_description` reads it."""
        entry: dict[str, Any] = jsonable(asdict(self))
        return entry

    @classmethod
    def from_description(cls, entry: dict[str, Any]) -> Record:
        """What `describe` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not write this.
        """
        columns = {name: tuple(float(value) for value in entry[name]) for name in _SERIES}
        cost = float(entry["cost"])
        return cls(entry["step"], entry["accepted"], entry["reason"], entry["cause"], cost, **columns)

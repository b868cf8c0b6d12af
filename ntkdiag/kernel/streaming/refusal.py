"""Exceptions that end a sweep: parameters or samples that it cannot serve."""

from __future__ import annotations


class Unsupported(Exception):
    """A rule does not cover this call of its operation; the coverage shows the reason."""


class Refused(Exception):
    """Some parameters need the exact engine; the sweep is run again without them.

    Args:
        reasons: Parameter name → why.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons

    def __str__(self) -> str:
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())


class SeveralSweeps(Exception):
    """The samples do not fit into one sweep, and only one is asked for.

    Args:
        fit: How many would fit.
    """

    def __init__(self, fit: int) -> None:
        super().__init__(fit)
        self.fit = fit

    def __str__(self) -> str:
        return f"memory for {self.fit} samples"

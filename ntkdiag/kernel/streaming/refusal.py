"""Exceptions that hand parameters to the exact engine, with the reason."""

from __future__ import annotations


class Unsupported(Exception):
    """A rule does not cover this call of its operation; the coverage shows the reason."""


class Refused(Exception):
    """Some parameters need the exact engine; the sweep is run again without them.

    Args:
        reasons: Parameter name → why.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons

"""How the engine says no: what it cannot serve goes to the exact engine, with the reason."""

from __future__ import annotations


class Unsupported(Exception):
    """An operation is beyond its rule; the reason ends up in the coverage."""


class Refused(Exception):
    """Found in the middle of a sweep that some parameters need another engine; the sweep is run again without them.

    Args:
        reasons: Parameter name → why.
    """

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
        self.reasons = reasons

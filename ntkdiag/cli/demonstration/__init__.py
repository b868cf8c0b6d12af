"""The demo: one network trained twice from the same start, with constant and with ERD weights, and measured."""

from ntkdiag.cli.demonstration.run import FULL, QUICK, demonstrate

__all__ = ["FULL", "QUICK", "demonstrate"]

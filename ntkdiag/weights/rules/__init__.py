"""Closed-form rules: what each computes, on which target, and how it is evaluated on another."""

from __future__ import annotations

import ntkdiag.weights.rules.formulas  # noqa: F401  (registers the published rules)

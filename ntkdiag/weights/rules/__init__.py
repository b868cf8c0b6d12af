"""Closed-form rules: what each computes, on which target, and how it is evaluated on another."""

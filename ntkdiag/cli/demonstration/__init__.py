"""The demo: one network trained twice from the same start, with constant and with ERD weights, and measured."""

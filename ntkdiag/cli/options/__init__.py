"""Options, and how their values are read."""

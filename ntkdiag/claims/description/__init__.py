"""Numbers that describe a network beside its effects: what its rank follows, and what takes its loss and gradients."""

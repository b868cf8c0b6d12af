"""The state of a training run, and its way to disk and back."""

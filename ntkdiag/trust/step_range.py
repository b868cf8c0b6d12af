"""How many of the next training steps a kernel describes, in one sentence, to stand beside what the kernel is said to do."""

from __future__ import annotations

import pandas as pd

# Largest relative error at which the linear model counts as right.
TOLERANCE = 0.1


def step_range(
    buckets: pd.DataFrame, most: int, optimizer: str, batch: int | None = None, tolerance: float = TOLERANCE
) -> str:
    """The sentence.

    Args:
        buckets: Columns log_snr and good_steps, as in `Linearity.buckets`.
        most: How many real steps were compared.
        optimizer: Which one took them.
        batch: Samples in a step, if known.
        tolerance: Relative error up to which a step counted as described.

    Example:
        >>> step_range(pd.DataFrame({"log_snr": [-5.0, 5.0], "good_steps": [8, 2]}), 32, "AdamW")
        'This kernel describes about the next 2 steps at every noise level within 10% of the change of the outputs, ...
    """
    within, by = f"{tolerance:.0%}", optimizer if batch is None else f"{optimizer}, batch {batch}"
    low, high = int(buckets["good_steps"].min()), int(buckets["good_steps"].max())
    if low == most:
        return (
            f"This kernel describes at least the next {counted(most)} at every noise level: the change of the outputs "
            f"is predicted within {within} ({by})."
        )
    said = "not even one step" if low == 0 else f"about the next {counted(low)}"
    best = float(buckets["log_snr"].iloc[int(buckets["good_steps"].to_numpy().argmax())])
    longest = f"{'at least ' if high == most else ''}{counted(high)}"
    more = f", and {longest} at log-SNR {best:.1f}" if high > low else ""
    return f"This kernel describes {said} at every noise level within {within} of the change of the outputs{more} ({by})."


def counted(count: int) -> str:
    """A number of steps in words."""
    return "1 step" if count == 1 else f"{count:,} steps"

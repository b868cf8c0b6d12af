"""What a statistic of the kernel follows between recipes that differ in their target or training density alone."""

from __future__ import annotations

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.spectra.dense.eigen import Array, real_array

# Condition number beyond which two rulers are one.
_DEPENDENT = 100.0


def between_targets(logs: Array, *rulers: Array) -> Array:
    """Slopes of ln S on rulers between recipes that differ in their target (or training density), a row a seed.

    Networks of the same seed have the same initialisation and inputs, so whatever the noise level does to all of them alike
    is removed by subtracting, in each bucket, the mean over recipes; least squares of what is left gives the slopes.

    Args:
        logs: ln of a statistic, [recipes, seeds, buckets].
        rulers: ln of what it may follow (recoverable share, training density), each [recipes, buckets].

    Returns:
        [seeds, rulers].

    Raises:
        InputError: one recipe, shapes that do not fit, or rulers that do not differ between recipes or that are linearly
            dependent there, so that their slopes cannot be told apart.
    """
    values = real_array(logs, "logarithms of a statistic")
    if values.ndim != 3 or len(values) < 2:
        raise InputError(
            "logarithms of a statistic",
            expected="[recipes, seeds, buckets] of at least 2 recipes",
            got=f"shape {list(values.shape)}",
        )
    columns, constant = [], False
    for ruler in rulers:
        given = real_array(ruler, "ruler")
        if given.shape != (values.shape[0], values.shape[2]):
            expected = f"shape [{values.shape[0]}, {values.shape[2]}], recipes × buckets"
            raise InputError("ruler", expected=expected, got=f"shape {list(given.shape)}")
        columns.append((given - given.mean(0)).ravel())
        constant |= bool(np.abs(columns[-1]).max() <= 1e-9 * np.abs(given).max())  # up to rounding
    design = np.stack(columns, 1)
    if constant or np.linalg.cond(design / np.linalg.norm(design, axis=0)) > _DEPENDENT:
        raise InputError(
            "rulers",
            expected="rulers that differ between recipes, each in its own way",
            got="rulers that are constant or proportional to each other there",
            fix="Add recipes with another target or another training density.",
        )
    within = (values - values.mean(0)).swapaxes(0, 1).reshape(values.shape[1], -1)
    slopes: Array = np.linalg.lstsq(design, within.T, rcond=None)[0].T
    return slopes

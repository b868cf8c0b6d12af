"""Top eigenfunctions of the full kernel as images: the changes of its output that the network learns fastest.

An eigenfunction has a value for every output of every sample; a panel shows its values on one sample, with a row for each
noise level and a column for each index. Red and blue are opposite signs, white is zero. The sign of an eigenfunction is
arbitrary, so each row takes the signs that agree with the row above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.columns import ordered
from ntkdiag.report.drawing import theme
from ntkdiag.report.drawing.tiles import tile
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import level
from ntkdiag.report.inputs import FULL_KERNEL, full_kernel_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ntkdiag.diagnosis import Diagnosis

MOST_ROWS, MOST_COLUMNS = 10, 8
PANELS = 2  # samples shown


def samples_shown(diagnosis: Diagnosis) -> list[str]:
    """Names of the samples that are drawn, one a panel: those on which the eigenfunctions have most of their energy.

    Raises:
        InputError: no full kernel, or outputs that are no images.
    """
    return list(_samples(_shown(diagnosis)[1]))


@figure(
    "eigenfunctions",
    draws=FULL_KERNEL,
    group=Group.FULL_KERNEL,
    title="What is learned fastest",
    caption="The strongest eigenfunctions on single samples, each scaled to its own largest value. "
    "Red and blue change the output in opposite directions (which colour is which is arbitrary), "
    "white not at all.",
    panels=samples_shown,
    size=(5.6, 6.6),
)
def draw_eigenfunctions(axes: Axes, diagnosis: Diagnosis, sample: str) -> None:
    """The eigenfunctions on one sample, each scaled to its own largest value there.

    Args:
        axes: Where to draw.
        diagnosis: With a full kernel of image outputs; several channels are averaged.
        sample: One of `samples_shown`.

    Raises:
        InputError: no full kernel, or outputs that are no images.
    """
    from matplotlib import colormaps

    levels, functions = _shown(diagnosis)
    images = functions[:, :, _samples(functions)[sample]]
    largest = np.abs(images).max((2, 3), keepdims=True)
    picture = tile(images / np.where(largest > 0, largest, 1.0))
    signs = colormaps["RdBu"].with_extremes(bad=theme.current().grid)
    axes.imshow(picture, cmap=signs, vmin=-1, vmax=1, interpolation="nearest")
    rows, columns, _, height, width = functions.shape
    axes.set_yticks((height + 1) * np.arange(rows) + 0.5 * (height + 1), [level(one) for one in levels])
    axes.set_xticks(
        (width + 1) * np.arange(columns) + 0.5 * (width + 1), [str(k + 1) for k in range(columns)]
    )
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("eigenfunction, strongest first")
    axes.set_ylabel("log-SNR, noisiest on top")
    axes.set_title(f"on {sample}")


def _shown(diagnosis: Diagnosis) -> tuple[np.ndarray, np.ndarray]:
    """Log-SNRs [b] ascending, and eigenfunctions [b, k, N, H, W] of evenly spaced buckets, channels averaged."""
    full = full_kernel_of(diagnosis)
    functions = full.eigenfunctions
    if functions.ndim != 6:
        raise InputError(
            "figure 'eigenfunctions'",
            expected="outputs that are images [C, H, W]",
            got=f"outputs of shape {list(functions.shape[3:])}",
        )
    summary = ordered(full.summary)
    places = np.unique(np.linspace(0, len(summary) - 1, MOST_ROWS).round().astype(int))
    chosen = summary.iloc[places]
    picked = functions[chosen["bucket"].astype(int).tolist(), :MOST_COLUMNS].double().mean(3).numpy()
    return chosen["log_snr"].to_numpy(), _signed(picked)


def _signed(functions: np.ndarray) -> np.ndarray:
    """Eigenfunctions [b, k, ...] with signs that agree with the same index at the noise level above."""
    turned = functions.copy()
    for row in range(1, len(turned)):
        overlap = (turned[row] * turned[row - 1]).sum((1, 2, 3), keepdims=True)
        turned[row] *= np.where(overlap < 0, -1.0, 1.0)
    return turned


def _samples(functions: np.ndarray) -> dict[str, int]:
    """Name of a sample → its place in the draws."""
    energy = np.square(functions).sum((0, 1, 3, 4))
    strongest = np.sort(np.argsort(-energy, kind="stable")[:PANELS])
    return {f"sample {place + 1} of {len(energy)}": int(place) for place in strongest}

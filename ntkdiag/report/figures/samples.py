"""What the networks generate, beside real data: a grid of images or a scatter of points in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ntkdiag.errors import InputError
from ntkdiag.report.drawing import style, theme
from ntkdiag.report.drawing.tiles import tile
from ntkdiag.report.figure_decorator import figure
from ntkdiag.report.figure_order import Group
from ntkdiag.report.formatting import one_line
from ntkdiag.report.inputs import SAMPLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REAL = ("data", "real")  # names under which real data is handed in
GRID = 6  # images a side
MOST_POINTS = 2000


def sample_names(samples: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the sets that can be drawn, real data first.

    Raises:
        InputError: there is none.
    """
    names = [
        name
        for name, values in samples.items()
        if len(values) and (_are_points(values) or _are_images(values))
    ]
    if not names:
        raise InputError("samples", expected="arrays [N, 1|3, H, W] or [N, 2]", got="none of that shape")
    return sorted(names, key=lambda name: name not in REAL)


@figure(
    "samples",
    draws=SAMPLES,
    group=Group.TRAINING,
    title="Samples",
    caption="Real data first, then what each run generates.",
    panels=sample_names,
    size=(3.6, 3.8),
)
def draw_samples(axes: Axes, samples: Mapping[str, np.ndarray], name: str) -> None:
    """One set of samples: points over the real ones in grey, or a grid of the first images.

    Args:
        axes: Where to draw.
        samples: Name → array; real data is called "data" or "real".
        name: The set to draw.

    Raises:
        InputError: its shape is neither [N, 2] nor [N, 1 or 3, H, W].
    """
    values = np.asarray(samples[name])
    title = "real data" if name in REAL else one_line(name)
    if _are_points(values):
        generated = style.lines([key for key in samples if key not in REAL])
        real = next((np.asarray(samples[key]) for key in REAL if key in samples), None)
        colour = theme.current().muted if name in REAL else generated[name].colour
        draw_points(axes, values, None if name in REAL else real, colour)
        _frame(axes, [np.asarray(points) for points in samples.values() if _are_points(points)])
    elif _are_images(values):
        draw_images(axes, values)
    else:
        raise InputError(
            f"samples '{one_line(name)}'", expected="[N, 1|3, H, W] or [N, 2]", got=str(values.shape)
        )
    axes.set_title(title, parse_math=False)


def draw_points(axes: Axes, points: np.ndarray, real: np.ndarray | None, colour: str) -> None:
    """Points in the plane [N, 2] over real ones [M, 2] in grey; at most `MOST_POINTS` of each."""
    if real is not None and _are_points(real):
        axes.scatter(
            real[:MOST_POINTS, 0],
            real[:MOST_POINTS, 1],
            s=5,
            color=theme.current().muted,
            alpha=0.25,
            lw=0,
            rasterized=True,
        )
    axes.scatter(
        points[:MOST_POINTS, 0], points[:MOST_POINTS, 1], s=5, color=colour, alpha=0.7, lw=0, rasterized=True
    )
    axes.set_aspect("equal")
    axes.set_xlabel("first coordinate")
    axes.set_ylabel("second coordinate")


def _frame(axes: Axes, sets: list[np.ndarray]) -> None:
    """The same square for every set: it contains 99% of each set along each axis; points outside are cut off."""
    ends = np.nanpercentile(
        np.stack([np.nanpercentile(points, [0.5, 99.5], axis=0) for points in sets]), [0, 100], axis=(0, 1)
    )
    middle, half = ends.mean(axis=0), 0.55 * np.ptp(ends, axis=0).max() or 1.0
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)


def draw_images(axes: Axes, images: np.ndarray) -> None:
    """The first images of [N, 1 or 3, H, W], values in [-1, 1], as a square grid."""
    axes.imshow(grid_of(images), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()


def grid_of(images: np.ndarray, side: int = GRID) -> np.ndarray:
    """The first side² of some images [N, C, H, W] in [-1, 1] as one picture [height, width(, 3)] in [0, 1].

    Missing images and pixels that are not finite are mid-grey.
    """
    count, channels, height, width = images.shape
    columns = min(side, count)
    rows = min(side, -(-count // columns))
    cells = np.full((rows * columns, height, width, channels), 0.5)
    shown = np.moveaxis(images[: rows * columns], 1, -1)
    cells[: len(shown)] = np.nan_to_num(np.clip((shown + 1) / 2, 0, 1), nan=0.5)
    picture = tile(cells.reshape(rows, columns, height, width, channels), gap=0.5)
    return picture[..., 0] if channels == 1 else picture


def _are_points(values: np.ndarray) -> bool:
    return np.ndim(values) == 2 and np.shape(values)[1] == 2


def _are_images(values: np.ndarray) -> bool:
    return np.ndim(values) == 4 and np.shape(values)[1] in (1, 3)

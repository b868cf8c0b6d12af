"""Labels that keep apart, ticks that can be read, and an axis that covers every bucket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag.report.drawing import axes as report_axes
from ntkdiag.report.drawing import labels, style

heights = st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array)


def new_axes() -> Axes:
    return Figure(figsize=(5, 3.5), layout="constrained").add_subplot()


@given(heights, st.floats(0.01, 0.08))
def test_spread_keeps_the_gap_the_order_and_the_frame(wanted: np.ndarray, gap: float) -> None:
    placed = labels.spread(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(placed[order]) >= gap - 1e-9).all()
    if gap * (len(wanted) - 1) <= 1:
        assert placed.min() >= -1e-9
        assert placed.max() <= 1 + 1e-9


def test_spread_leaves_alone_what_is_apart_and_centres_what_touches() -> None:
    assert labels.spread(np.array([0.1, 0.5, 0.9]), 0.1) == pytest.approx([0.1, 0.5, 0.9])
    assert labels.spread(np.array([0.5, 0.5]), 0.1) == pytest.approx([0.45, 0.55])
    assert labels.spread(np.array([1.0, 1.0]), 0.1) == pytest.approx([0.9, 1.0])
    assert labels.spread(np.array([0.5, 0.5, 0.5]), 0.8) == pytest.approx([-0.3, 0.5, 1.3])


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_line_end_labels_stand_at_the_height_of_their_line(scale: str) -> None:
    axes = new_axes()
    axes.set_yscale(scale)
    axes.set_ylim(1, 100)
    axes.set_xlim(0, 1)
    labels.label_line_ends(axes, [labels.End(1.0, 10.0, "ten", style.line("erd"))])
    (text,) = axes.texts
    assert text.get_text() == "ten"
    assert text.get_color() == style.colour("erd")
    assert text.xyann[1] == pytest.approx(0.5 if scale == "log" else 9 / 99)


def test_labels_show_their_dashes_only_where_colours_repeat() -> None:
    solid, dashed = style.Line("#000000"), style.Line("#000000", (0, (1, 1)))
    apart, alike = new_axes(), new_axes()
    labels.label_line_ends(
        apart, [labels.End(1, 0.2, "a", solid), labels.End(1, 0.8, "b", style.line("erd"))]
    )
    labels.label_line_ends(alike, [labels.End(1, 0.2, "a", solid), labels.End(1, 0.8, "b", dashed)])
    assert len(apart.lines) == 0
    assert len(alike.lines) == 2


def test_a_line_without_a_finite_point_has_no_end() -> None:
    x = np.arange(3.0)
    assert labels.line_end("a", x, np.full(3, np.nan), style.line("erd")) == []
    (end,) = labels.line_end("a", x, np.array([1.0, 2.0, np.nan]), style.line("erd"))
    assert (end.x, end.y) == (1.0, 2.0)


def test_point_labels_do_not_cover_points_bars_or_each_other() -> None:
    axes = new_axes()
    x, y = np.array([0.5, 0.52, 0.54, 0.5]), np.array([0.5, 0.53, 0.5, 0.56])
    axes.scatter(x, y)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.figure.draw_without_rendering()
    labels.label_points(axes, x, y, ["−9", "−7", "−5", "9"], (y - 0.04, y + 0.04))
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for place, a in enumerate(boxes) for b in boxes[:place])
    points = axes.transData.transform(np.column_stack([x, y]))
    assert not any(box.contains(px, py) for box in boxes for px, py in points)


def tick_texts(axes: Axes) -> list[str]:
    axes.figure.draw_without_rendering()
    low, high = axes.get_ylim()
    axis = axes.yaxis
    return [axis.get_major_formatter()(value) for value in axis.get_majorticklocs() if low <= value <= high]


@pytest.mark.parametrize(
    ("low", "high", "some"),
    [(0.88, 1.2, {"0.9", "1", "1.1"}), (0.5, 30, {"0.5", "1", "2", "10"}), (1e-6, 10, {"10⁻⁴", "0.01", "1"})],
)
def test_logarithmic_ticks_are_plain_and_never_too_few(low: float, high: float, some: set[str]) -> None:
    axes = new_axes()
    axes.plot([0, 1], [low, high])
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    report_axes.log_axis(axes)
    texts = tick_texts(axes)
    assert some <= set(texts)
    assert len(set(texts)) == len(texts)


def test_the_log_snr_axis_covers_buckets_whose_value_is_missing() -> None:
    axes = new_axes()
    log_snr = np.array([-8.0, 0.0, 8.0])
    axes.plot(log_snr, [np.nan, 1.0, np.nan])
    report_axes.log_snr_axis(axes, log_snr)
    low, high = axes.get_xlim()
    assert low < -8
    assert high > 8
    assert "noisier" in axes.get_xlabel()


def test_one_log_snr_alone_gets_room_on_both_sides() -> None:
    axes = new_axes()
    report_axes.log_snr_axis(axes, np.array([2.0]))
    assert axes.get_xlim() == (1.0, 3.0)


def test_a_logarithmic_colour_bar_has_plain_ticks() -> None:
    from matplotlib.colors import LogNorm

    axes = new_axes()
    image = axes.imshow([[1e-5, 1.0]], norm=LogNorm())
    report_axes.colour_bar(axes, image, "share")
    bar = axes.figure.axes[-1]
    bar.figure.draw_without_rendering()
    texts = [label.get_text() for label in bar.get_yticklabels()]
    assert "10⁻⁴" in texts
    assert not any("mathdefault" in text for text in texts)

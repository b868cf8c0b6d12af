"""That the figures show the numbers they were given."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.report import FIGURES
from ntkdiag.report import runs as run_tables
from ntkdiag.report.drawing import curves, style
from ntkdiag.report.figures import (
    coupling,
    effective,
    loss,
    quality,
    recoverability,
    samples,
    spectra,
    training,
    weights,
)
from ntkdiag.weights import WeightTable


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def curve(axes: Axes, colour: str) -> np.ndarray:
    """The one line of a colour that has data [n, 2]."""
    (line,) = [
        one for one in axes.lines if to_hex(one.get_color()) == colour.lower() and len(one.get_xdata()) > 2
    ]
    return np.column_stack([line.get_xdata(), line.get_ydata()])


def test_effective_rank_shows_both_networks_and_the_interval(axes: Axes, diagnosis: SimpleNamespace) -> None:
    shuffled = diagnosis.summary.sample(frac=1, random_state=0)
    FIGURES["effective_rank"].draw(axes, SimpleNamespace(**vars(diagnosis) | {"summary": shuffled}))
    expected = diagnosis.summary[["log_snr", "effective_rank"]].to_numpy()
    assert np.allclose(curve(axes, style.colour("trained")), expected)
    control = diagnosis.refs["untrained"].summary[["log_snr", "effective_rank"]].to_numpy()
    assert np.allclose(curve(axes, style.colour("untrained")), control)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(diagnosis.summary["effective_rank_high"].max())
    assert band[:, 1].min() == pytest.approx(diagnosis.summary["effective_rank_low"].min())
    assert axes.get_ylim()[0] == 0


def test_an_interval_that_stands_alone_is_a_bar(axes: Axes) -> None:
    x = np.arange(4.0)
    y, nan = np.ones(4), np.nan
    low, high = np.array([0.5, 0.5, nan, 0.5]), np.array([2.0, 2.0, nan, 2.0])
    curves.draw_with_interval(axes, x, y, low, high, look=style.line("erd"))
    (bars,) = [c for c in axes.collections if type(c).__name__ == "LineCollection"]
    assert [segment[0][0] for segment in bars.get_segments()] == [3.0]


def test_negative_signal_is_shown_on_a_linear_axis(axes: Axes, diagnosis: SimpleNamespace) -> None:
    diagnosis.summary.loc[0, "gsnr"] = -0.05
    FIGURES["gsnr"].draw(axes, diagnosis)
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < -0.05
    assert np.isclose(curve(axes, style.colour("trained"))[:, 1].min(), -0.05)


def test_spectra_are_one_line_a_bucket_brighter_where_cleaner(axes: Axes, diagnosis: SimpleNamespace) -> None:
    spectra.draw_spectra(axes, diagnosis)
    assert len(axes.lines) == len(diagnosis.summary)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    brightness = [sum(line.get_color()[:3]) for line in axes.lines]
    assert np.argmin(brightness) == 0
    assert np.argmax(brightness) == len(brightness) - 1
    first = diagnosis.spectra[diagnosis.spectra["bucket"] == 0]["eigenvalue"]
    shown = np.asarray(axes.lines[0].get_ydata())
    kept = np.isfinite(shown)
    assert np.allclose(shown[kept], first[kept])


def test_eigenvalues_in_the_float_noise_are_not_drawn(axes: Axes, diagnosis: SimpleNamespace) -> None:
    top = diagnosis.spectra["eigenvalue"].max()
    diagnosis.spectra.loc[diagnosis.spectra["index"] > 40, "eigenvalue"] = 1e-12 * top
    spectra.draw_spectra(axes, diagnosis)
    assert np.nanmin([np.nanmin(line.get_ydata()) for line in axes.lines]) >= spectra.SMALLEST_SHARE * top


def test_the_map_has_a_column_a_bucket_at_its_own_edges(axes: Axes, diagnosis: SimpleNamespace) -> None:
    spectra.draw_spectrum_map(axes, diagnosis)
    meshes = [c for c in axes.collections if type(c).__name__ == "QuadMesh"]
    assert len(meshes) == len(diagnosis.summary)
    share = diagnosis.spectra[diagnosis.spectra["bucket"] == 3]["share"]
    assert np.allclose(np.ravel(meshes[3].get_array()), share.clip(lower=meshes[3].norm.vmin))
    assert axes.get_xlim() == (
        diagnosis.summary["log_snr_low"].min(),
        diagnosis.summary["log_snr_high"].max(),
    )
    assert len({mesh.norm.vmax for mesh in meshes}) == 1


def test_points_of_recoverability_are_labelled_and_coloured_by_log_snr(
    axes: Axes, diagnosis: SimpleNamespace
) -> None:
    recoverability.draw_against_rank(axes, diagnosis, "amplitude")
    (points,) = [c for c in axes.collections if type(c).__name__ == "PathCollection"]
    expected = diagnosis.summary[["amplitude", "effective_rank"]].to_numpy()
    assert np.allclose(points.get_offsets(), expected)
    assert [text.get_text() for text in axes.texts] == ["−9", "−7", "−5", "−3", "−1", "1", "3", "5", "7", "9"]
    assert "rank correlation 1.0" in axes.get_title(loc="left") + axes.get_title()


def test_the_rank_correlation_averages_ties(axes: Axes, diagnosis: SimpleNamespace) -> None:
    """By hand: ranks 1, 2½, 2½, 4 against 1, 2, 3, 4 have correlation 4.5 / √(4.5 · 5)."""
    diagnosis.summary = diagnosis.summary.iloc[:4].assign(
        amplitude=[0.0, 1.0, 1.0, 4.0], effective_rank=[1.0, 2.0, 5.0, 9.0]
    )
    recoverability.draw_against_rank(axes, diagnosis, "amplitude")
    assert "rank correlation 0.95 over 4 " in axes.get_title(loc="left") + axes.get_title()


def test_scores_without_a_finite_value_are_left_out(cases: SimpleNamespace) -> None:
    diagnosis = cases.diagnosis(oracle=False)
    assert recoverability.scores_present(diagnosis) == ["amplitude", "learnability", "gsnr"]
    diagnosis.summary = diagnosis.summary[["bucket", "log_snr"]]
    with pytest.raises(InputError, match="amplitude, bayes_share"):
        recoverability.scores_present(diagnosis)


def test_a_floor_known_only_from_above_is_called_so(cases: SimpleNamespace) -> None:
    exact, bound = cases.diagnosis(), cases.diagnosis()
    bound.summary["excess"] = np.nan
    names = []
    for diagnosis in (exact, bound):
        axes = Figure().add_subplot()
        loss.draw_loss(axes, diagnosis)
        names.append([text.get_text() for text in axes.texts])
    assert "floor: not learnable" in names[0]
    assert "upper bound of the floor" in names[1]


def test_coupling_is_symmetric_centred_and_shows_holes(axes: Axes, diagnosis: SimpleNamespace) -> None:
    half = diagnosis.coupling[diagnosis.coupling["bucket_a"] <= diagnosis.coupling["bucket_b"]].copy()
    half = half[~((half["bucket_a"] == 0) & (half["bucket_b"] == 9))]
    diagnosis.coupling = half.sample(frac=1, random_state=1)
    coupling.draw_gradient_coupling(axes, diagnosis)
    (image,) = axes.images
    shown = np.asarray(image.get_array().filled(np.nan))
    assert np.array_equal(shown, shown.T, equal_nan=True)
    assert np.isnan(shown[0, 9])
    assert shown[2, 5] == pytest.approx(
        half.set_index(["bucket_a", "bucket_b"]).loc[(2, 5), "gradient_cosine"]
    )
    assert image.norm.vmin == -image.norm.vmax
    middle = image.cmap(image.norm(0.0))
    assert np.ptp(middle[:3]) < 0.02  # neutral at zero
    assert "–" in [text.get_text() for text in axes.texts]


def test_a_cosine_is_shown_with_its_reach_and_only_where_its_sign_is_known(
    axes: Axes, diagnosis: SimpleNamespace
) -> None:
    frame = diagnosis.coupling
    frame["gradient_cosine_low"], frame["gradient_cosine_high"] = -0.1, 0.9
    own = frame["bucket_a"] == frame["bucket_b"]
    frame.loc[own, ["gradient_cosine_low", "gradient_cosine_high"]] = 0.7, 1.1
    coupling.draw_gradient_coupling(axes, diagnosis)
    shown = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert np.array_equal(np.isfinite(shown), np.eye(len(shown), dtype=bool))
    said = [text.get_text() for text in axes.texts]
    assert said.count("–") == len(shown) * (len(shown) - 1)
    assert said.count("±0.3") == said.count("1.0") == len(shown)
    with pytest.raises(InputError, match="gradient_cosine"):
        diagnosis.coupling = frame.drop(columns=["gradient_cosine_low", "gradient_cosine_high"])
        coupling.draw_gradient_coupling(axes, diagnosis)


def test_a_gradient_signal_without_an_interval_is_no_measure_of_recoverability(
    axes: Axes, diagnosis: SimpleNamespace
) -> None:
    recoverability.draw_against_rank(axes, diagnosis, "gsnr")
    assert len(axes.collections) == 3 and not axes.get_title()  # points, and bars both ways
    diagnosis.summary = diagnosis.summary.drop(columns=["gsnr_low", "gsnr_high"])
    assert "gsnr" not in recoverability.scores_present(diagnosis)


def test_a_cosine_that_noise_puts_beyond_one_is_shown_as_one(axes: Axes, diagnosis: SimpleNamespace) -> None:
    diagnosis.coupling[["gradient_cosine", "gradient_cosine_low", "gradient_cosine_high"]] *= 1.7
    coupling.draw_gradient_coupling(axes, diagnosis)
    assert {text.get_text() for text in axes.texts} >= {"1.0"}
    assert "1.7" not in {text.get_text() for text in axes.texts}


def test_every_rule_of_the_catalogue_has_a_curve_that_averages_to_one() -> None:
    from ntkdiag.weights import RULES

    grid, cosine = np.linspace(-8, 8, 801), schedules.cosine()
    density = cosine.density(torch.tensor(grid)).numpy()
    for target in ("epsilon", "x0", "v"):
        rules = weights.all_rules(target, cosine)
        assert list(rules)[:2] == [f"constant_{target}", "erd"]
        assert set(rules) == set(RULES)
        for rule in rules.values():
            curve = weights.normalised(rule, grid, grid, cosine)
            assert np.trapezoid(curve * density, grid) / np.trapezoid(density, grid) == pytest.approx(1.0)


def test_weights_that_are_one_objective_share_a_curve() -> None:
    """ERD on v is debias on v; P2 with k = 1 and γ = ½ is ERD on ε (Yao et al. 2026 against Choi et al. 2022)."""
    grid = np.linspace(-8, 8, 101)
    curves = {name: weights.normalised(rule, grid, grid) for name, rule in weights.all_rules("v").items()}
    assert weights.ties(curves)["erd"] == ["erd", "debias"]
    assert weights.ties(curves)["constant_v"] == ["constant_v"]


def test_constant_and_erd_keep_their_colours_among_all_rules(axes: Axes) -> None:
    grid = np.linspace(-8, 8, 101)
    weights.draw_weights(axes, weights.all_rules("x0", schedules.cosine()), grid, schedules.cosine())
    flat = curve(axes, style.colour("constant"))
    assert np.allclose(flat[:, 1], 1.0)
    erd = curve(axes, style.colour("erd"))[:, 1]
    alpha = np.sqrt(1 / (1 + np.exp(-grid)))
    assert np.allclose(erd / erd[-1], alpha / alpha[-1])
    assert axes.get_yscale() == "log"


def measured_table(target: str = "v") -> WeightTable:
    """Weights with intervals; one of them ends below everything shown, one reaches beyond the grid."""
    level = torch.linspace(-6, 6, 7, dtype=torch.float64)
    weight = 1 + torch.sigmoid(level)
    low = torch.where(level == 0, 0.0, weight / 2)
    return WeightTable(level, weight, target, low=low, high=2 * weight)


def test_intervals_of_measured_weights_are_drawn_on_the_scale_of_their_curve(axes: Axes) -> None:
    grid, table = np.linspace(-5, 5, 101), measured_table()
    weights.draw_weights(axes, {"measured": table, "constant": lambda x: 1 + 0 * x}, grid)
    (bars,) = [found for found in axes.collections if isinstance(found, LineCollection)]
    ends = np.array(bars.get_segments())
    assert ends[:, 0, 0].tolist() == [-4, -2, 0, 2, 4]  # rows beyond the levels shown are not
    mean = np.trapezoid(table(torch.tensor(grid)).numpy(), grid) / 10
    expected = np.array([1 + 1 / (1 + np.exp(-x)) for x in ends[:, 0, 0]]) / mean
    assert np.allclose(ends[:, 1, 1], 2 * expected)
    assert np.allclose(np.delete(ends[:, 0, 1], 2), np.delete(expected, 2) / 2)
    assert ends[2, 0, 1] == axes.get_ylim()[0]


def test_effective_weights_have_area_one_and_do_not_depend_on_the_target() -> None:
    grid, cosine = np.linspace(-9, 9, 901), schedules.cosine()
    shares = [
        effective.effective(weights.all_rules(target, cosine)["min_snr"], target, grid, cosine)
        for target in ("epsilon", "x0", "v")
    ]
    assert np.trapezoid(shares[0], grid) == pytest.approx(1.0)
    assert np.allclose(shares[0], shares[1], rtol=1e-8) and np.allclose(shares[0], shares[2], rtol=1e-8)
    by_hand = np.minimum(1, 5 * np.exp(-grid)) * cosine.density(torch.tensor(grid)).numpy()
    assert np.allclose(shares[0], by_hand / np.trapezoid(by_hand, grid), rtol=1e-6)


def test_a_tables_own_target_counts_and_no_schedule_is_refused(
    axes: Axes, diagnosis: SimpleNamespace
) -> None:
    grid, cosine = np.linspace(-9, 9, 91), schedules.cosine()
    table = measured_table("epsilon")
    assert np.allclose(
        effective.effective(table, "v", grid, cosine), effective.effective(table, "epsilon", grid, cosine)
    )
    diagnosis.meta["config"]["schedule"] = None
    with pytest.raises(InputError, match="names its schedule"):
        effective.draw_effective_weights_of(axes, (diagnosis, None))


def test_weights_that_are_nowhere_positive_are_refused(axes: Axes) -> None:
    with pytest.raises(InputError, match="positive somewhere"):
        weights.draw_weights(
            axes, {"zero": lambda x: 0 * x, "nan": lambda x: x * float("nan")}, np.linspace(-1, 1, 9)
        )


def test_a_schedule_is_rebuilt_from_its_record(diagnosis: SimpleNamespace) -> None:
    for schedule in (schedules.cosine(), schedules.edm(p_mean=-0.4), schedules.flow(0.0, 1.0)):
        diagnosis.meta["config"]["schedule"] = schedule.describe()
        assert weights.schedule_of(diagnosis) == schedule
    for broken in ({"name": "nonsense"}, {"name": "cosine", "beta": 1}, None, "cosine"):
        diagnosis.meta["config"]["schedule"] = broken
        assert weights.schedule_of(diagnosis) is None


def losses(values: list[float], spread: float = 1.1) -> pd.DataFrame:
    loss = np.array(values)
    return pd.DataFrame(
        {
            "log_snr": np.arange(len(loss), dtype=float),
            "loss": loss,
            "loss_low": loss / spread,
            "loss_high": loss * spread,
        }
    )


def test_loss_ratio_and_its_interval() -> None:
    log_snr, ratio, low, high = training.loss_ratio(losses([1.0, 3.0]), losses([2.0, 2.0]))
    assert np.array_equal(log_snr, [0.0, 1.0])
    assert np.allclose(ratio, [0.5, 1.5])
    assert np.allclose(np.log(high / ratio), np.sqrt(2) * np.log(1.1))
    assert np.allclose(low * high, ratio**2)


def test_loss_ratio_is_over_the_constant_run_wherever_it_stands(axes: Axes) -> None:
    training.draw_loss_ratio(axes, {"erd": losses([1.0, 1.0, 3.0]), "constant": losses([2.0, 2.0, 2.0])})
    assert np.allclose(curve(axes, style.colour("erd"))[:, 1], [0.5, 0.5, 1.5])
    assert "loss of constant" in axes.get_ylabel()
    assert training.baseline({"b": 0, "a": 0}) == "b"


def test_one_run_or_none_in_common_gives_no_ratio(axes: Axes) -> None:
    with pytest.raises(InputError, match="at least two runs"):
        training.draw_loss_ratio(axes, {"erd": losses([1.0])})
    apart = losses([1.0]).assign(log_snr=50.0)
    with pytest.raises(InputError, match="buckets that two runs share"):
        training.draw_loss_ratio(axes, {"constant": losses([1.0]), "erd": apart})


def test_histories_and_losses_are_told_apart_by_their_columns() -> None:
    history = pd.DataFrame({"step": [0, 10], "loss": [1.0, 0.5], "log_snr": 0.0})
    runs = {"a": history, "b": losses([1.0]), "c": {"history": history, "buckets": losses([2.0])}}
    assert set(run_tables.histories(runs)) == {"a", "c"}
    assert set(run_tables.bucket_losses(runs)) == {"b", "c"}
    with pytest.raises(InputError, match="step and loss"):
        run_tables.histories({"b": losses([1.0])})


def test_running_mean_is_centred_and_skips_holes() -> None:
    values = np.array([0.0, 3.0, np.nan, 9.0, 12.0])
    assert np.allclose(training.running_mean(values, 3), [1.5, 1.5, 6.0, 10.5, 10.5])
    assert np.allclose(training.running_mean(values[:2], 1), values[:2])


def test_images_are_tiled_row_by_row_in_grey() -> None:
    images = np.stack([np.full((1, 2, 3), value) for value in (-1.0, 0.0, 1.0, 5.0)])
    picture = samples.grid_of(images, side=3)
    assert picture.shape == (2 * 3 + 1, 3 * 4 + 1)
    assert np.array_equal(picture[1:3, 1:4], np.zeros((2, 3)))
    assert np.array_equal(picture[1:3, 5:8], np.full((2, 3), 0.5))
    assert np.array_equal(picture[1:3, 9:12], np.ones((2, 3)))
    assert np.array_equal(picture[4:6, 1:4], np.ones((2, 3)))  # beyond 1 is cut
    assert np.array_equal(picture[4:6, 5:8], np.full((2, 3), 0.5))  # no image there


def test_colour_images_keep_their_channels_and_bad_pixels_are_grey() -> None:
    image = np.full((1, 3, 1, 1), -1.0)
    image[0, 0], image[0, 1] = 1.0, np.nan
    assert np.allclose(samples.grid_of(image)[1, 1], [1.0, 0.5, 0.0])


def test_real_data_comes_first_and_lies_under_generated_points(axes: Axes, cases: SimpleNamespace) -> None:
    points = cases.points()
    assert samples.sample_names({"a": points["erd"], "data": points["data"]}) == ["data", "a"]
    samples.draw_samples(axes, points, "erd")
    under, over = axes.collections
    assert np.allclose(under.get_offsets(), points["data"])
    assert np.allclose(over.get_offsets(), points["erd"])
    assert axes.get_title() == "erd"


def test_samples_of_another_shape_are_refused(axes: Axes) -> None:
    latents = {"erd": np.zeros((3, 4, 8, 8))}
    with pytest.raises(InputError, match=r"\[N, 2\]"):
        samples.sample_names(latents)
    with pytest.raises(InputError, match=r"got \(3, 4, 8, 8\)"):
        samples.draw_samples(axes, latents, "erd")


def test_quality_shows_each_run_with_its_interval(axes: Axes, cases: SimpleNamespace) -> None:
    table = cases.quality()
    assert quality.metrics_present(table) == ["FD-digits (lower is better)", "coverage"]
    quality.draw_metric(axes, table, "coverage")
    assert [line.get_xdata()[0] for line in axes.lines] == [0.82, 0.9, 0.86]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["constant", "erd", "min_snr"]
    assert to_hex(axes.lines[1].get_color()) == style.colour("erd").lower()

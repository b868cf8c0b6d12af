"""Figures and tables of the full kernel: the numbers they were given, and what they say where there are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntkdiag.errors import InputError
from ntkdiag.report import FIGURES, plot, save_figures
from ntkdiag.report.drawing import style
from ntkdiag.report.figures import eigenfunctions, full_kernel, spectra
from ntkdiag.report.inputs import FULL_KERNEL, ReportInputs
from ntkdiag.report.page import page
from ntkdiag.report.tables import full_table

NAMES = [name for name, spec in FIGURES.items() if spec.draws is FULL_KERNEL]


@pytest.fixture
def axes() -> Axes:
    return Figure().add_subplot()


def points(axes: Axes, place: int) -> np.ndarray:
    line = axes.lines[place]
    return np.column_stack([line.get_xdata(), line.get_ydata()])


def test_density_is_a_line_and_a_band_a_bucket_in_eigenvalues(axes: Axes, diagnosis: SimpleNamespace) -> None:
    full_kernel.draw_density(axes, diagnosis)
    assert len(axes.lines) == len(axes.collections) == len(diagnosis.summary)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    rows = diagnosis.full.density[diagnosis.full.density["bucket"] == 3]
    expected = full_kernel.smeared(rows["log_eigenvalue"].to_numpy(), rows["density"].to_numpy())
    shown, kept = points(axes, 3), expected > full_kernel.LEAST_DENSITY
    assert kept.any() and not kept.all()
    assert np.allclose(shown[kept, 0], np.exp(rows["log_eigenvalue"][kept]))
    assert np.allclose(shown[kept, 1], expected[kept])
    assert np.isnan(shown[~kept, 1]).all()
    band = axes.collections[3].get_paths()[0].vertices[:, 1]
    assert band.max() == pytest.approx(1.2 * expected.max())  # as the rows' high is
    assert band.min() == pytest.approx(full_kernel.LEAST_DENSITY)


def test_smearing_keeps_the_number_of_eigenvalues() -> None:
    place = np.linspace(-10, 5, 301)
    peak = np.exp(-0.5 * ((place + 3) / 0.15) ** 2) / (0.15 * np.sqrt(2 * np.pi))
    found = full_kernel.smeared(place, np.where(peak > 1e-9, peak, np.nan))
    assert np.trapezoid(found, place) == pytest.approx(1, rel=1e-3)
    mean = np.trapezoid(found * place, place)
    spread = np.sqrt(np.trapezoid(found * (place - mean) ** 2, place))
    assert (mean, spread) == (
        pytest.approx(-3, rel=1e-3),
        pytest.approx(np.hypot(0.15, full_kernel.WIDTH), rel=1e-2),
    )


@pytest.mark.parametrize("signal", ["target", "residual"])
def test_alignment_adds_up_from_nothing(axes: Axes, diagnosis: SimpleNamespace, signal: str) -> None:
    shuffled = diagnosis.full.spectra.sample(frac=1, random_state=0)
    diagnosis.full.spectra = shuffled
    full_kernel.draw_alignment(axes, diagnosis, signal)
    rows = shuffled[shuffled["bucket"] == 2].sort_values("index")
    expected = np.append(0, np.cumsum(rows[f"{signal}_alignment"]))
    assert np.allclose(points(axes, 2), np.column_stack([np.arange(6), expected]))
    assert signal in axes.get_ylabel() and axes.get_title() + axes.get_title(loc="left") == signal


def test_one_noise_level_alone_is_named(axes: Axes, cases: SimpleNamespace) -> None:
    full_kernel.draw_alignment(axes, cases.diagnosis(1), "residual")
    assert axes.get_title() + axes.get_title(loc="left") == "residual, log-SNR 0"


def test_contraction_is_a_band_at_each_buckets_own_times(axes: Axes, diagnosis: SimpleNamespace) -> None:
    full_kernel.draw_contraction(axes, diagnosis)
    rows = diagnosis.full.contraction[diagnosis.full.contraction["bucket"] == 7]
    assert np.allclose(points(axes, 7), rows[["time", "high"]])
    edges = axes.collections[7].get_paths()[0].vertices
    for time, low in zip(rows["time"], rows["low"], strict=True):
        assert (np.isclose(edges[:, 0], time) & np.isclose(edges[:, 1], low)).any()
    assert axes.get_ylim()[0] == 0


def test_a_log_snr_has_the_same_colour_as_in_the_spectra(diagnosis: SimpleNamespace) -> None:
    def colours(draw: object, *more: str) -> list[tuple]:
        axes = Figure().add_subplot()
        draw(axes, diagnosis, *more)  # type: ignore[operator]
        return [tuple(line.get_color()) for line in axes.lines]

    expected = colours(spectra.draw_spectra)
    assert len(set(expected)) == len(expected)
    assert colours(full_kernel.draw_density) == colours(full_kernel.draw_alignment, "target") == expected
    assert colours(full_kernel.draw_contraction) == expected


def test_rank_stands_beside_the_control(axes: Axes, diagnosis: SimpleNamespace) -> None:
    full_kernel.draw_full_rank(axes, diagnosis)
    ours = diagnosis.full.summary[["log_snr", "effective_rank"]].to_numpy()
    theirs = diagnosis.refs["untrained"].full.summary[["log_snr", "effective_rank"]].to_numpy()
    assert np.allclose(points(axes, 0), ours) and np.allclose(points(axes, 1), theirs)
    assert axes.lines[1].get_color() == style.colour("untrained")
    diagnosis.refs["untrained"].full = None
    alone = Figure().add_subplot()
    full_kernel.draw_full_rank(alone, diagnosis)
    assert len(alone.lines) == 1


# --- images


def test_eigenfunctions_are_tiled_noisiest_first_each_to_its_own_scale(
    axes: Axes, diagnosis: SimpleNamespace
) -> None:
    functions = torch.zeros(10, 5, 48, 1, 8, 8)
    functions[
        2, 3, 6, 0, 1, 4
    ] = -0.25  # a pixel of the fourth eigenfunction of bucket 2 on the seventh sample
    functions[2, 3, 6, 0, 1, 5] = 0.125
    diagnosis.full.eigenfunctions = functions
    names = eigenfunctions.samples_shown(diagnosis)
    assert names[-1] == "sample 7 of 48" and len(names) == 2
    eigenfunctions.draw_eigenfunctions(axes, diagnosis, "sample 7 of 48")
    shown = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert shown.shape == (10 * 9 + 1, 5 * 9 + 1)
    row, place = 2 * 9 + 1 + 1, 3 * 9 + 1 + 4
    assert shown[row, place] == -1.0 and shown[row, place + 1] == 0.5
    assert np.nansum(np.abs(shown)) == 1.5
    assert np.isnan(shown[0]).all() and np.isnan(shown[:, 9]).all()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "2", "3", "4", "5"]
    assert [text.get_text() for text in axes.get_yticklabels()][:3] == ["−9", "−7", "−5"]
    image = axes.images[0]
    assert np.ptp(image.cmap(image.norm(0.0))[:3]) < 0.02  # neutral at zero


def test_buckets_in_any_order_are_drawn_by_log_snr(axes: Axes, cases: SimpleNamespace) -> None:
    diagnosis = cases.diagnosis(3)
    diagnosis.full.eigenfunctions = torch.zeros(3, 1, 48, 1, 2, 2)
    diagnosis.full.eigenfunctions[2, 0, 0] = 1.0
    diagnosis.full.summary = diagnosis.full.summary.iloc[::-1]
    eigenfunctions.draw_eigenfunctions(axes, diagnosis, "sample 1 of 48")
    assert np.array_equal(np.nansum(axes.images[0].get_array().filled(np.nan), axis=1).nonzero()[0], [7, 8])


def test_signs_follow_the_row_above(axes: Axes, cases: SimpleNamespace) -> None:
    diagnosis = cases.diagnosis(3)
    functions = torch.randn(1, 2, 48, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    diagnosis.full.eigenfunctions = torch.cat([functions, -functions, functions])
    eigenfunctions.draw_eigenfunctions(axes, diagnosis, eigenfunctions.samples_shown(diagnosis)[0])
    shown = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert np.array_equal(shown[:5], shown[5:10], equal_nan=True)
    assert np.array_equal(shown[:5], shown[10:15], equal_nan=True)


def test_channels_are_averaged_and_many_rows_thinned_out(axes: Axes, cases: SimpleNamespace) -> None:
    diagnosis = cases.diagnosis(40, samples=3)
    functions = torch.zeros(40, 12, 3, 2, 4, 4)
    functions[:, :, :, 0], functions[:, :, :, 1] = 1.0, -1.0
    functions[0, 0, 0, 0, 0, 0] = 3.0
    diagnosis.full.eigenfunctions = functions
    eigenfunctions.draw_eigenfunctions(axes, diagnosis, "sample 1 of 3")
    shown = np.asarray(axes.images[0].get_array().filled(np.nan))
    assert shown.shape == (eigenfunctions.MOST_ROWS * 5 + 1, eigenfunctions.MOST_COLUMNS * 5 + 1)
    assert np.nansum(shown) == 1.0  # all but one pixel cancel
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[0] == "−9" and labels[-1] == "9" and len(labels) == eigenfunctions.MOST_ROWS


def test_outputs_that_are_no_images_are_left_out_with_a_sentence(
    cases: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = cases.diagnosis(2)
    diagnosis.full.eigenfunctions = torch.zeros(2, 5, 48, 2)
    with pytest.raises(InputError, match=r"images \[C, H, W\]; got outputs of shape \[2\]"):
        eigenfunctions.samples_shown(diagnosis)
    monkeypatch.setattr(page, "FIGURES", {name: FIGURES[name] for name in ("eigenfunctions", "contraction")})
    text = page.build_page(ReportInputs(diagnosis))
    assert (
        "<b>What is learned fastest</b>: figure &#x27;eigenfunctions&#x27;: expected outputs that are images"
        in text
    )
    assert "How fast the residual would shrink" in text


# --- nothing there


def test_without_a_full_kernel_the_page_says_nothing_of_it(
    cases: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "FIGURES", {name: FIGURES[name] for name in ("trace", "contraction")})
    text = page.build_page(ReportInputs(cases.diagnosis(2, full=False)))
    assert "full kernel" not in text and "Figures left out" not in text
    with_it = page.build_page(ReportInputs(cases.diagnosis(2)))
    assert "What the full kernel adds" in with_it and "The full kernel in numbers" in with_it
    assert "each of the 3,072 outputs of the 48 samples" in with_it
    assert with_it.index("Trace of the kernel") < with_it.index("What the full kernel adds")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_full_kernel_a_figure_says_how_to_get_one(
    cases: SimpleNamespace, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match=r"the trace kernel alone\. Measure with --kernel full\."):
        plot(cases.diagnosis(2, full=False), name, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_without_quadrature_the_density_says_how_to_get_it(axes: Axes, diagnosis: SimpleNamespace) -> None:
    diagnosis.full.density = diagnosis.full.density.iloc[:0]
    with pytest.raises(InputError, match="--slq 2"):
        full_kernel.draw_density(axes, diagnosis)
    diagnosis.full.spectra[["target_alignment", "residual_alignment"]] = np.nan
    with pytest.raises(InputError, match="a target or a residual"):
        full_kernel.signals_present(diagnosis)


def test_figures_of_the_full_kernel_are_saved_with_the_others(
    cases: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntkdiag.report.render.FIGURES", {name: FIGURES[name] for name in NAMES})
    assert list(save_figures(tmp_path / "with", cases.diagnosis(3))) == NAMES
    assert save_figures(tmp_path / "without", cases.diagnosis(3, full=False)) == {}


# --- the table


def test_the_table_has_the_sums_of_what_was_found(diagnosis: SimpleNamespace) -> None:
    diagnosis.full.summary = diagnosis.full.summary.drop(
        columns=["effective_rank", "effective_rank_low", "effective_rank_high"]
    )
    for table in (diagnosis.full.summary, diagnosis.full.spectra):
        table["bucket"] = 9 - table["bucket"]  # numbered from the clean end
    found = full_table(diagnosis)
    row = dict(zip(found.columns, found.rows[-1], strict=True))
    share = diagnosis.full.spectra.query("bucket == 0")["target_alignment"].sum()
    assert float(row["target in 5"]) == pytest.approx(share, rel=0.01)
    assert row["log-SNR"] == "9" and row["effective rank [90%]"] == "–"
    assert row["PR [90%]"] == "8.00 [7.20, 8.80]"
    control = diagnosis.refs["untrained"].full.summary["effective_rank"].iloc[-1]
    assert float(row["untrained"]) == pytest.approx(control, rel=0.01)

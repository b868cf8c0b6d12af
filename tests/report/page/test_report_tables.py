"""Text tables and the sentences read off a diagnosis."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ntkdiag.cli.output.tables import zero_text
from ntkdiag.report import summary_sentences, summary_table
from ntkdiag.report.formatting import level
from ntkdiag.report.page.numbers_legend import legend
from ntkdiag.report.page.summary_sentences import kernels_of_zero
from ntkdiag.report.tables import Table, quality_table


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_a_row_a_bucket_from_noisy_to_clean(diagnosis: SimpleNamespace) -> None:
    diagnosis.summary = diagnosis.summary.sample(frac=1, random_state=3)
    table = summary_table(diagnosis)
    assert column(table, "log-SNR") == ["−9", "−7", "−5", "−3", "−1", "1", "3", "5", "7", "9"]
    assert table.columns[:4] == ("log-SNR", "trace", "top eigenvalue", "effective rank [90%]")
    assert table.columns[-1] == "loss"
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert column(table, "effective rank [90%]")[0] == "2.28 [2.12, 2.48]"


def test_weights_and_losses_of_runs_are_columns(diagnosis: SimpleNamespace, cases: SimpleNamespace) -> None:
    runs = cases.runs(diagnosis.summary["log_snr"].to_numpy())
    tables = {"flat": lambda log_snr: torch.full_like(log_snr, 7.0)}
    table = summary_table(diagnosis, tables, {"constant": runs["constant"], "erd": runs["erd"]})
    assert column(table, "weight flat") == ["1.00"] * 10
    assert table.columns[-2:] == ("loss constant", "loss erd")
    assert column(table, "loss erd")[0] == "1.20"


def test_a_run_on_other_buckets_leaves_gaps(diagnosis: SimpleNamespace, cases: SimpleNamespace) -> None:
    table = summary_table(diagnosis, runs=cases.runs(np.array([-9.0, 0.5])))
    assert column(table, "loss erd")[1:] == ["–"] * 9
    assert column(table, "loss erd")[0] != "–"


def test_missing_numbers_are_dashes(cases: SimpleNamespace) -> None:
    diagnosis = cases.diagnosis(buckets=1, oracle=False, untrained=False)
    diagnosis.summary = diagnosis.summary.drop(columns=["gsnr", "effective_rank_low"])
    table = summary_table(diagnosis)
    assert column(table, "Bayes share ≥") == ["–"]
    assert column(table, "GSNR [90%]") == ["–"]
    assert "[" not in column(table, "effective rank [90%]")[0]
    assert "untrained" not in table.columns


def test_the_legend_explains_the_columns_that_there_are(diagnosis: SimpleNamespace) -> None:
    columns = summary_table(diagnosis).columns
    said = legend(columns, diagnosis)
    for heading in columns[3:]:
        assert f"{heading.split(' [')[0].removesuffix(' ≥')}: ".lower() in said.lower()
    assert "Untrained: the effective rank of the untrained network" in said
    diagnosis.refs["untrained 2"] = diagnosis.refs["untrained"]
    assert "one untrained network (the first of 2)" in legend(columns, diagnosis)
    bare = legend(("log-SNR", "trace"), diagnosis)
    assert "Trace: " in bare and "ntrained" not in bare and "GSNR" not in bare


def test_text_columns_are_aligned() -> None:
    text = Table(("a", "long"), (("1", "2"), ("333", "4"))).as_text()
    assert text == "  a  long\n─────────\n  1     2\n333     4"


def test_quality_as_a_table(cases: SimpleNamespace) -> None:
    quality = quality_table(cases.quality())
    assert quality.columns == ("run", "FD-digits (lower is better)", "coverage")
    assert quality.rows[1] == ("erd", "11.1 [10.3, 12.0]", "0.900 [0.837, 0.972]")
    assert quality_table(cases.quality().iloc[:4]).rows[1][2] == "–"


def test_sentences_name_where_rank_is_lost_against_the_control(diagnosis: SimpleNamespace) -> None:
    said = " ".join(summary_sentences(diagnosis))
    assert "lowest at log-SNR −9, with 2.28 [2.12, 2.48], and highest at 9" in said
    assert "the trained network is lower at log-SNR −9 and −7 and higher at" in said
    assert "Compared with the untrained network at each" in said
    diagnosis.refs["untrained 2"] = diagnosis.refs["untrained"]
    assert "Compared with one untrained network (the first of 2) at each" in " ".join(
        summary_sentences(diagnosis)
    )
    assert (
        "oppose each other most are those at log-SNR −9 and 9 (cosine −0.25 [−0.31, −0.21], 90% interval)"
        in said
    )
    assert "too few samples for the effective rank itself" in said


def test_sentences_claim_no_difference_that_the_intervals_do_not_allow(diagnosis: SimpleNamespace) -> None:
    diagnosis.summary["effective_rank_low"] = 0.0
    diagnosis.summary["effective_rank_high"] = 99.0
    said = " ".join(summary_sentences(diagnosis))
    assert "may be no real difference" in said
    assert "At no noise level" in said


def test_sentences_say_when_samples_are_enough_and_nothing_conflicts(diagnosis: SimpleNamespace) -> None:
    diagnosis.rarefaction["effective_rank"] = 5.0
    diagnosis.coupling[["gradient_cosine", "gradient_cosine_low", "gradient_cosine_high"]] = 0.5, 0.4, 0.6
    said = " ".join(summary_sentences(diagnosis))
    assert "There were enough samples" in said
    assert "No two noise levels" in said
    diagnosis.coupling.loc[0, "gradient_cosine"] = np.nan
    assert "No two of the noise levels whose mean gradient exceeds" in " ".join(summary_sentences(diagnosis))


def test_a_kernel_of_zeros_is_said_on_the_page_and_in_the_terminal(diagnosis: SimpleNamespace) -> None:
    assert not kernels_of_zero(diagnosis.summary)
    diagnosis.summary.loc[0, "trace"] = 0.0
    words = f"The kernel is zero at log-SNR {level(diagnosis.summary.log_snr[0])}: no parameter moves an output there"
    assert summary_sentences(diagnosis)[0].startswith(words)
    assert zero_text(diagnosis).startswith(words)
    diagnosis.summary["trace"] = 0.0
    assert "zero at every noise level" in kernels_of_zero(diagnosis.summary)


def test_gradients_oppose_each_other_only_where_the_interval_says_so(diagnosis: SimpleNamespace) -> None:
    assert "oppose each other most" in " ".join(summary_sentences(diagnosis))
    for reach, known in ((0.02, True), (1.0, False)):
        diagnosis.coupling["gradient_cosine_high"] = diagnosis.coupling["gradient_cosine"] + reach
        said = " ".join(summary_sentences(diagnosis))
        assert ("oppose each other most" in said) == known
        assert ("known to oppose" in said) != known
    cosine = diagnosis.coupling["gradient_cosine"].min()
    diagnosis.coupling["gradient_cosine_high"] = diagnosis.coupling["gradient_cosine"] + 0.02
    interval = f"(cosine {cosine:.2g} [{cosine - 0.06:.2g}, {cosine + 0.02:.2g}], 90% interval)"
    assert interval.replace("-", "−") in " ".join(summary_sentences(diagnosis))
    diagnosis.coupling = diagnosis.coupling.drop(columns=["gradient_cosine_low", "gradient_cosine_high"])
    assert "oppose each other most" not in " ".join(summary_sentences(diagnosis))


def test_a_gradient_signal_is_printed_with_its_interval_or_not_at_all(diagnosis: SimpleNamespace) -> None:
    diagnosis.summary.loc[0, ["gsnr", "gsnr_low", "gsnr_high"]] = 0.00259, -0.0007, 0.0059
    diagnosis.summary.loc[1, ["gsnr_low", "gsnr_high"]] = np.nan
    shown = summary_table(diagnosis)
    cells = [row[shown.columns.index("GSNR [90%]")] for row in shown.rows]
    assert cells[:2] == ["0.0026 [−7.0×10⁻⁴, 0.0059]", "–"]


def test_rarefaction_slope_is_given_for_a_doubling(diagnosis: SimpleNamespace) -> None:
    frame = diagnosis.rarefaction
    frame["effective_rank"] = frame["samples"] ** 0.5
    assert "about 41%" in " ".join(summary_sentences(diagnosis))


@pytest.mark.parametrize("buckets", [1, 2])
def test_sentences_of_a_bare_diagnosis(cases: SimpleNamespace, buckets: int) -> None:
    diagnosis = cases.diagnosis(buckets=buckets, untrained=False, oracle=False)
    diagnosis.coupling = diagnosis.coupling.iloc[:0]
    diagnosis.rarefaction = diagnosis.rarefaction.iloc[:0]
    said = summary_sentences(diagnosis)
    assert any("No untrained network was measured" in sentence for sentence in said)
    diagnosis.summary["effective_rank"] = np.nan
    assert not any("effective rank is" in sentence for sentence in summary_sentences(diagnosis))

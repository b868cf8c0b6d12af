"""measure and verify of networks with conditions: kernels in closed form, and what may be said of the best possible loss."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diagnosis_cases import BUCKETS, POINTS
from torch import Tensor, nn

import ntkdiag as nd
from ntkdiag.data import Data
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import FullSettings, measure
from ntkdiag.diagnosis.bayes import finite_optimal
from ntkdiag.errors import InputError
from ntkdiag.process.bayes import FiniteOracle
from ntkdiag.process.paired_draws import PairedDraws

SIZE, CLASSES, SAMPLES = 4, 3, 12


class LabelledLinear(nn.Module):
    """W x + e[label], so that K = x·x' + [label = label']."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE, bias=False)
        self.label = nn.Embedding(CLASSES + 1, SIZE)

    def forward(self, x: Tensor, log_snr: Tensor, y: Tensor) -> Tensor:
        return self.linear(x) + self.label(y)


def labelled_linear(seed: int = 0) -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LabelledLinear().double()
    return Denoiser(
        network,
        nd.schedules.cosine(),
        "v",
        call="log_snr",
        conditions={"label": "y"},
        null={"label": CLASSES},
    )


def points(count: int = 60) -> Data:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    x = torch.randn(count, SIZE, generator=generator, dtype=torch.float64) + 2 * labels[:, None]
    half = count // 2
    return Data("points", x[:half], x[half:], labels=labels[:half], held_out_labels=labels[half:])


def expected(draws: PairedDraws, labels: Tensor) -> Tensor:
    """[B, N, N]."""
    same = (labels[:, None] == labels).double()
    x = torch.stack([draws.at(nd.schedules.cosine(), level) for level in BUCKETS.centers])
    return x @ x.mT + same


def test_a_sample_keeps_its_label_in_every_bucket() -> None:
    data = points()
    found = measure(labelled_linear(), data, BUCKETS, samples=SAMPLES, probes=SIZE, seed=3)
    draws = PairedDraws.draw(data.train, SAMPLES, 3, cond=data.conditions)
    torch.testing.assert_close(
        found.grams["trace"], expected(draws, draws.cond["label"]), rtol=1e-9, atol=1e-11
    )
    assert len(draws.cond["label"].unique()) == CLASSES
    assert found.meta["conditions"]["label"]["dtype"] == "int64"
    residuals = []
    network = labelled_linear()
    for level in BUCKETS.centers:
        x, wanted = network.training_pair(draws.x0, draws.epsilon, torch.tensor(level).double())
        residuals.append(
            (network(x, level, {"label": draws.cond["label"]}) - wanted).square().mean(1).detach()
        )
    torch.testing.assert_close(found.grams["losses"], torch.stack(residuals), rtol=1e-9, atol=1e-11)


def test_at_the_null_label_all_samples_have_one() -> None:
    data = points().at_condition(label=CLASSES)
    found = measure(labelled_linear(), data, BUCKETS, samples=SAMPLES, probes=SIZE, seed=3)
    draws = PairedDraws.draw(data.train, SAMPLES, 3)
    torch.testing.assert_close(
        found.grams["trace"], expected(draws, torch.full((SAMPLES,), CLASSES)), rtol=1e-9, atol=1e-11
    )
    assert found.meta["conditions"]["label"]["shared"] == CLASSES


def test_the_full_kernel_has_the_same_trace() -> None:
    found = measure(
        labelled_linear(),
        points(),
        BUCKETS,
        samples=SAMPLES,
        probes=SIZE,
        full=FullSettings(top_k=4, quadrature_vectors=0),
    )
    assert found.full is not None
    for b in range(len(BUCKETS)):
        row = found.full.summary.iloc[b]
        assert row["trace_low"] <= found.summary["trace"][b] * (1 + 1e-9) and row["trace"] == pytest.approx(
            found.summary["trace"][b], rel=0.05
        )


def test_references_and_controls_get_the_conditions_too() -> None:
    found = nd.verify(
        labelled_linear(),
        points(),
        BUCKETS,
        level="quick",
        samples=10,
        probes=2,
        controls=2,
        fresh=labelled_linear,
    )
    assert sorted(found.diagnosis.refs) == ["untrained", "untrained 2"]
    plain = Denoiser(nn.Linear(SIZE, SIZE).double(), nd.schedules.cosine(), "v", call=lambda n, x, t, c: n(x))
    with pytest.raises(
        InputError, match=r"reference 'other': expected the network's conditions \['label'\]; got \[\]"
    ):
        measure(labelled_linear(), points(), BUCKETS, samples=8, refs={"other": plain})


# --- the best possible loss of a network that knows the label


def test_an_oracle_of_all_classes_together_is_not_the_optimum_of_a_network_that_knows_the_label() -> None:
    labels = (POINTS.train[:, 0] > 0).long()
    held_out = (POINTS.held_out[:, 0] > 0).long()  # type: ignore[index]
    data = Data("mixture", POINTS.train, POINTS.held_out, POINTS.oracle, labels, held_out)
    denoiser = Denoiser(
        nd.models.build("mlp", (2,), width=8, depth=1, classes=2), nd.schedules.cosine(), "v", call="log_snr"
    )
    found = measure(denoiser, data, BUCKETS, samples=8, probes=1)
    assert "do not see the network's conditions" in found.meta["bayes_source"]
    assert found.summary["excess"].isna().all() and found.summary["contamination"].isna().all()
    assert found.summary["contamination_finite"].notna().any()
    exact = measure(denoiser, data.at_condition(label=2), BUCKETS, samples=8, probes=1)
    assert exact.meta["bayes_source"].startswith("mixture") and exact.summary["excess"].notna().all()
    # What an estimator without labels reaches can be reached with them: the bound may be loose and not wrong.
    assert (found.summary["bayes_share"] <= exact.summary["bayes_share"] + 0.02).all()
    assert (found.summary["floor"] >= exact.summary["floor"] * 0.98).all()


def test_the_memorising_optimum_chooses_among_samples_of_the_same_label() -> None:
    data, denoiser = points(), labelled_linear()
    draws = PairedDraws.draw(data.train, SAMPLES, 3, cond=data.conditions)
    levels = torch.tensor(BUCKETS.centers, dtype=torch.float64)
    found = finite_optimal(denoiser, data, draws, levels)
    assert found is not None and data.labels is not None
    schedule = denoiser.schedule
    for n in range(SAMPLES):
        own = FiniteOracle(data.train[data.labels == draws.cond["label"][n]])
        for b, level in enumerate(levels):
            x = schedule.diffuse(draws.x0[n : n + 1], draws.epsilon[n : n + 1], level)
            x0 = own.posterior_mean(x, schedule.alpha(level), schedule.sigma(level))
            epsilon = (x - schedule.alpha(level) * x0) / schedule.sigma(level)
            wanted = schedule.alpha(level) * epsilon - schedule.sigma(level) * x0  # v
            torch.testing.assert_close(found[b, n], wanted[0], rtol=1e-9, atol=1e-9)
    everyone = finite_optimal(denoiser, data.at_condition(label=0), draws, levels)
    assert everyone is not None and not torch.allclose(everyone, found, rtol=1e-3)


def test_other_conditions_than_labels_leave_the_memorising_optimum_out() -> None:
    data = points()
    text = {"text": data.train.clone()}
    with_text = Data("points", data.train, cond=text)
    network = nn.Linear(SIZE, SIZE).double()
    denoiser = Denoiser(
        network, nd.schedules.cosine(), "v", call=lambda n, x, t, c: n(x + c["text"]), conditions=["text"]
    )
    found = measure(denoiser, with_text, BUCKETS, samples=8, probes=SIZE)
    assert found.summary["contamination_finite"].isna().all()
    draws = PairedDraws.draw(with_text.train, 8, 0)
    x = torch.stack([draws.at(denoiser.schedule, level) + draws.x0 for level in BUCKETS.centers])
    torch.testing.assert_close(found.grams["trace"], x @ x.mT + 1, rtol=1e-9, atol=1e-11)


# --- what is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Data("x", torch.zeros(9, SIZE).double()), "conditions of the network: expected label; got none"),
        (
            Data("x", torch.zeros(9, SIZE).double(), labels=torch.arange(9)),
            r"expected a forward on data of shape \(2, 4\) with label from 0 to 8; got IndexError: index out of range",
        ),
        (
            Data(
                "x",
                torch.zeros(9, SIZE).double(),
                labels=torch.zeros(9).long(),
                cond={"text": torch.zeros(9, 1)},
            ),
            r"expected label; got label, text. Name what the network takes with conditions= of its Denoiser",
        ),
        (
            Data("x", torch.zeros(9, SIZE).double(), cond={"label": torch.zeros(9)}),
            r"expected a forward on data of shape \(1, 4\) with label \[\]; got ",
        ),
    ],
    ids=["missing", "range", "extra", "dtype"],
)
def test_conditions_that_do_not_fit_the_network_are_refused_before_any_work(data: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        measure(labelled_linear(), data, BUCKETS, samples=4)


def test_held_out_errors_use_the_held_out_labels() -> None:
    found = measure(labelled_linear(), points(), BUCKETS, samples=8, held_out_unseen=True)
    assert math.isfinite(found.summary["floor"].sum())

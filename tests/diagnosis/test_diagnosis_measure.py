"""measure: what the tables say against closed forms, the same draws for all, and what is refused."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diagnosis_cases import BUCKETS, POINTS, linear, mlp, small, vectors
from torch import Tensor, nn

from ntkdiag import models
from ntkdiag.data import mixture
from ntkdiag.denoiser import Denoiser
from ntkdiag.diagnosis import Diagnosis, bucket_kernels, measure
from ntkdiag.diagnosis.bayes import bayes_truth
from ntkdiag.diagnosis.bucket_kernels import MOST_TOGETHER, samples_together
from ntkdiag.diagnosis.result import TABLES
from ntkdiag.errors import InputError, MeasurementError
from ntkdiag.process import schedules, target
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.recoverability import amplitude
from ntkdiag.spectra import subsample_interval
from ntkdiag.weights import measured

INTERVALS = (
    *("loss", "trace", "top_eigenvalue", "effective_rank", "participation_ratio_pairs"),
    *("participation_ratio", "stable_rank", "decay_exponent", "gsnr", "gain", "shared_share"),
    *(
        "centred_trace",
        "centred_top_eigenvalue",
        "centred_effective_rank",
        "centred_participation_ratio_pairs",
    ),
)
COLUMNS = [
    *("bucket", "log_snr", "log_snr_low", "log_snr_high", "extrapolated", "samples", "trace_x0"),
    *("numerical_rank", "input_effective_rank", "top8_energy", "negative_mass", "amplitude"),
    *("bayes_share", "bayes_share_estimate", "floor", "excess", "learnability", "half_life"),
    *("contamination", "contamination_low", "contamination_high"),
    *("contamination_finite", "contamination_finite_low", "contamination_finite_high"),
    *(f"{name}{end}" for name in INTERVALS for end in ("", "_low", "_high")),
]


def text(diagnosis: Diagnosis) -> str:
    """Everything but the seconds it took."""
    tables = [getattr(diagnosis, name).to_csv() for name in TABLES]
    grams = [f"{name}{gram.numpy().tobytes().hex()}" for name, gram in diagnosis.grams.items()]
    refs = [text(reference) for reference in diagnosis.refs.values()]
    return "".join([*tables, *grams, *refs, str({**diagnosis.meta, "seconds": None})])


# --- against the truth


@pytest.mark.parametrize("kind", ["x0", "v", "epsilon"])
def test_a_linear_network_agrees_with_its_closed_form(kind: str) -> None:
    """f = W x + b: K = x·x' + 1, and the residual kernel is (r·r')(x·x' + 1)/D²."""
    denoiser, data, samples = linear(target=kind), vectors(), 12
    found = measure(denoiser, data, BUCKETS, samples=samples, probes=2, seed=4)
    draws = PairedDraws.draw(data.train, samples, 4)
    inputs, residuals = [], []
    for level in BUCKETS.centers:
        x = draws.at(denoiser.schedule, level)
        wanted = target.value(kind, denoiser.schedule, level, draws.x0, draws.epsilon)
        inputs.append(x)
        residuals.append((denoiser(x, level) - wanted).detach())
    x, r = torch.cat(inputs), torch.cat(residuals)
    inner = x @ x.T + 1
    torch.testing.assert_close(found.grams["residual"], (r @ r.T) / 36 * inner, rtol=1e-9, atol=1e-12)
    for b in range(3):
        part = slice(b * samples, (b + 1) * samples)
        own, row = inner[part, part], found.summary.iloc[b]
        torch.testing.assert_close(found.grams["trace"][b], own, rtol=1e-9, atol=1e-12)
        e = torch.linalg.eigvalsh(own / samples).flip(0).numpy()
        p = np.clip(e, 0, None) / e.sum()
        gain = float(target.x0_gain(kind, denoiser.schedule, BUCKETS.centers[b]))
        loss = r[part].square().mean(1).numpy()
        reach = float(amplitude(kind, denoiser.schedule, BUCKETS.centers[b]))
        expected = {
            "trace": e.sum(),
            "trace_x0": e.sum() / gain**2,
            "top_eigenvalue": e[0],
            "effective_rank": math.exp(-sum(q * math.log(q) for q in p if q > 0)),
            "participation_ratio": e.sum() ** 2 / (e**2).sum(),
            "stable_rank": e.sum() / e[0],
            "numerical_rank": 7,  # six inputs and a bias
            "top8_energy": 1.0,
            "loss": loss.mean(),
            "amplitude": reach,
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-8), name
        spectrum = found.spectra[found.spectra["bucket"] == b]
        np.testing.assert_allclose(spectrum["eigenvalue"], e, atol=1e-9)
        np.testing.assert_allclose(spectrum["share"], e / e.sum(), atol=1e-9)
        assert spectrum["index"].tolist() == list(range(1, samples + 1))


def test_learnability_and_half_life_of_a_linear_network() -> None:
    denoiser, data, samples = linear(target="epsilon"), vectors(), 12
    found = measure(denoiser, data, BUCKETS, samples=samples, probes=6, seed=4)
    draws = PairedDraws.draw(data.train, samples, 4)
    kernels = [(x @ x.T + 1) / samples for x in (draws.at(denoiser.schedule, c) for c in BUCKETS.centers)]
    kappa = float(np.median([float(k.trace()) / samples for k in kernels]))
    assert found.meta["kappa"] == pytest.approx(kappa, rel=1e-9)
    for b, kernel in enumerate(kernels):
        # L = tr(Yᵀ K (K + κ)⁻¹ Y)/‖Y‖²: ridge regression, without eigenvectors.
        shrunk = torch.linalg.solve(kernel + kappa * torch.eye(samples, dtype=kernel.dtype), kernel)
        share = float((draws.epsilon * (shrunk @ draws.epsilon)).sum() / draws.epsilon.square().sum())
        assert found.summary["learnability"][b] == pytest.approx(share, rel=1e-8)
        residual = (denoiser(draws.at(denoiser.schedule, BUCKETS.centers[b]), 0.0) - draws.epsilon).detach()
        life = found.summary["half_life"][b]
        left = torch.matrix_exp(-life * kernel) @ residual if math.isfinite(life) else None
        if left is not None:
            assert float(left.square().sum() / residual.square().sum()) == pytest.approx(0.5, rel=1e-5)
        else:  # half of the residual lies where a kernel of rank seven does not reach
            values, basis = torch.linalg.eigh(kernel)
            dead = basis[:, values < 1e-6 * values[-1]].T @ residual
            assert float(dead.square().sum() / residual.square().sum()) >= 0.5
    assert np.isfinite(found.summary["half_life"]).any()


def test_coupling_of_a_linear_network() -> None:
    denoiser, data, samples = linear(), vectors(), 40
    found = measure(denoiser, data, BUCKETS, samples=samples, probes=6, seed=1).coupling
    draws = PairedDraws.draw(data.train, samples, 1)
    x = [draws.at(denoiser.schedule, level) for level in BUCKETS.centers]
    r = [(denoiser(one, 0.0) - draws.x0).detach() for one in x]
    assert len(found) == 9
    others = ~torch.eye(samples, dtype=torch.bool)

    def signal(a: int, b: int) -> float:
        return float(((r[a] @ r[b].T) * (x[a] @ x[b].T + 1))[others].mean())

    known = []
    for row in found.itertuples():
        a, b = row.bucket_a, row.bucket_b
        sums = {pair: float((x[pair[0]] @ x[pair[1]].T + 1).sum()) for pair in ((a, b), (a, a), (b, b))}
        assert row.kernel == pytest.approx(sums[a, b] / math.sqrt(sums[a, a] * sums[b, b]), rel=1e-9)
        given = np.isfinite([row.gradient_cosine, row.gradient_cosine_low, row.gradient_cosine_high])
        assert given.all() or not given.any()
        if given.all():
            expected = signal(a, b) / math.sqrt(signal(a, a) * signal(b, b))
            assert row.gradient_cosine == pytest.approx(
                float(np.clip(expected, row.gradient_cosine_low, row.gradient_cosine_high)), rel=1e-7
            )
        known.append(given.all())
        assert (row.log_snr_a, row.log_snr_b) == (BUCKETS.centers[a], BUCKETS.centers[b])
    assert any(known)


@pytest.mark.parametrize(
    "path", [schedules.cosine(), schedules.flow(), schedules.edm()], ids=lambda s: s.name
)
@pytest.mark.parametrize("kind", target.TARGETS)
def test_floor_and_excess_make_up_the_expected_loss(path: Any, kind: str) -> None:
    """Paired: loss − excess of each sample has the floor for its mean, whatever the network."""
    denoiser, samples = mlp(kind, schedule=path), 8192
    data = mixture(train=samples, held_out=1)
    draws = PairedDraws.draw(data.train.double(), samples, 2)
    truth = bayes_truth(denoiser, data, draws, BUCKETS, seed=5)
    assert truth.optimal is not None and truth.optimal.shape == (3, samples, 2)
    for b, level in enumerate(BUCKETS.centers):
        with torch.no_grad():
            prediction = denoiser.double()(draws.at(path, level), level)
        wanted = target.value(kind, path, level, draws.x0, draws.epsilon)
        loss = (prediction - wanted).square().mean(1)
        excess = (prediction - truth.optimal[b]).square().mean(1)
        noise = (loss - excess).numpy()
        error = math.hypot(
            noise.std() / math.sqrt(samples), 0.02 * float(truth.floor[b])
        )  # and the floor's own
        assert abs(noise.mean() - float(truth.floor[b])) < 3.5 * error
        assert error < 0.05 * (float(truth.floor[b]) + noise.std())


def test_excess_is_the_distance_to_the_optimal_denoiser() -> None:
    """The optimal denoiser itself has an excess of zero and a loss near the floor."""
    assert POINTS.oracle is not None
    oracle, path = POINTS.oracle, schedules.cosine()

    def call(network: nn.Module, x: Tensor, log_snr: Tensor, cond: Any) -> Tensor:
        return oracle.posterior_mean(x, path.alpha(log_snr), path.sigma(log_snr)) + 0 * network(x)

    denoiser = Denoiser(nn.Linear(2, 2).double(), path, "x0", call=call)
    found = measure(denoiser, POINTS, Buckets.uniform(-4, 4, count=2), samples=64, engine="exact").summary
    assert found["excess"].abs().max() < 1e-12
    error = np.log(found["loss_high"] / found["loss_low"]) / 2 / 1.67  # half of a 90% interval of Student's t
    assert (np.log(found["loss"] / found["floor"]).abs() < 3 * error).all()
    assert found["bayes_share"].is_monotonic_increasing


def test_contamination_by_the_posterior_of_the_training_set() -> None:
    """Energies of single samples by plain autograd, and the softmax over all training samples written out."""
    data, denoiser, level = vectors(), linear(), 1.0
    found = measure(denoiser, data, Buckets.from_edges([level - 1, level + 1]), samples=12, probes=2, seed=4)
    row = found.summary.iloc[0]
    assert math.isnan(row["contamination"])
    draws, path = PairedDraws.draw(data.train, 12, 4), schedules.cosine()
    alpha, sigma = float(path.alpha(level)), float(path.sigma(level))
    noise, whole = [], []
    for x0, epsilon in zip(draws.x0, draws.epsilon, strict=True):
        x = alpha * x0 + sigma * epsilon
        weights = torch.softmax(-(x - alpha * data.train).square().sum(1) / (2 * sigma**2), 0)
        prediction = denoiser(x[None], level)[0]
        for rows, wanted in ((noise, weights @ data.train - x0), (whole, prediction.detach() - x0)):
            gradients = torch.autograd.grad(
                prediction, list(denoiser.parameters()), wanted / 6, retain_graph=True
            )
            rows.append(sum(float(gradient.square().sum()) for gradient in gradients))
    assert row["contamination_finite"] == pytest.approx(np.mean(noise) / np.mean(whole), rel=1e-9)
    assert row["contamination_finite_low"] < row["contamination_finite"] < row["contamination_finite_high"]
    exact = measure(mlp(), POINTS, BUCKETS, samples=8, probes=1).summary
    assert exact["contamination_finite"].isna().all() and exact["contamination"].notna().all()


def test_the_loss_of_each_sample_is_kept() -> None:
    found = small(samples=8)
    np.testing.assert_allclose(found.grams["losses"].mean(1).numpy(), found.summary["loss"].to_numpy())


# --- one measurement, its draws and its seeds


def test_columns_are_those_promised() -> None:
    found = small()
    assert sorted(found.summary.columns) == sorted(COLUMNS)
    assert list(found.spectra.columns) == ["bucket", "log_snr", "index", "eigenvalue", "share"]
    assert list(found.rarefaction.columns) == [
        "bucket", "log_snr", "samples", "effective_rank", "effective_rank_std",
    ]  # fmt: skip
    assert found.summary["bucket"].tolist() == [0, 1, 2]
    assert found.summary["log_snr"].tolist() == list(BUCKETS.centers)
    assert found.summary["log_snr_low"].tolist() == list(BUCKETS.edges[:-1])
    assert found.summary["log_snr_high"].tolist() == list(BUCKETS.edges[1:])
    for name in INTERVALS:
        low, value, high = (found.summary[f"{name}{end}"] for end in ("_low", "", "_high"))
        if name == "decay_exponent":  # of eight eigenvalues, which fewer samples do not have
            assert low.isna().all() and high.isna().all()
        else:
            assert ((low < value) & (value < high)).all(), name
    full = found.rarefaction[found.rarefaction["samples"] == 8]["effective_rank"]
    np.testing.assert_allclose(full, found.summary["effective_rank"])


def test_every_column_is_described_where_it_is_documented() -> None:
    described = Diagnosis.__doc__ or ""
    for name in COLUMNS:
        bare = re.sub(r"_(low|high)$", "", name)
        assert re.search(rf"\b{name}\b|\b{bare}\b", described), name


def test_a_seed_gives_the_same_bytes_and_another_does_not() -> None:
    assert text(small()) == text(small())
    assert text(small()) != text(small(seed=1))


def test_torchs_own_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    small()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_references_share_data_noise_and_probes() -> None:
    """The network as its own reference comes out the same to the last bit, the scale of learnability included."""
    found = small(refs={"twin": mlp(), "other": mlp(seed=1)})
    twin, other = found.refs["twin"], found.refs["other"]
    for name in TABLES:
        assert getattr(twin, name).equals(getattr(found, name))
    for name, gram in found.grams.items():
        if not name.startswith("output"):  # those of the network alone
            assert torch.equal(twin.grams[name], gram)
    assert not any(name.startswith("output") for name in twin.grams)
    assert twin.meta["kappa"] == other.meta["kappa"] == found.meta["kappa"]
    assert not torch.equal(other.grams["trace"], found.grams["trace"])
    # The floor depends on draws and target alone.
    assert other.summary["floor"].equals(found.summary["floor"])


def test_buckets_share_data_and_noise() -> None:
    """A bucket measured alone comes out as it does among others."""
    together = small().summary.iloc[1]
    alone = small_alone().summary.iloc[0]
    for name in ("loss", "trace", "effective_rank", "excess", "gsnr", "trace_low", "gsnr_high"):
        assert alone[name] == pytest.approx(together[name], rel=1e-5), name


def small_alone() -> Diagnosis:
    return measure(mlp(), POINTS, Buckets((-2.0, 2.0), (0.0,)), samples=8, probes=1)


@pytest.mark.parametrize("path", [schedules.cosine(), schedules.edm()])
def test_the_rank_of_the_inputs_is_that_of_the_noisy_samples(path: Any) -> None:
    found = measure(mlp(schedule=path), POINTS, BUCKETS, samples=8, probes=1, seed=3)
    draws = PairedDraws.draw(POINTS.train, 8, 3)
    for row in found.summary.to_dict("records"):
        values = torch.linalg.svdvals(draws.at(path, row["log_snr"]).flatten(1).double()).square()
        shares = values / values.sum()
        rank = float(torch.exp(-(shares * shares.log()).sum()))
        assert row["input_effective_rank"] == pytest.approx(rank, rel=1e-6)


def test_parameters_can_be_chosen_and_progress_is_reported() -> None:
    reported: list[tuple[str, int, int]] = []
    found = small(params="out.*", progress=lambda *step: reported.append(step))
    assert found.meta["config"]["params"] == "out.*"
    assert set(found.meta["coverage"]) == {"out.weight", "out.bias"}
    assert found.meta["network"]["parameters"] == 18
    names = [what for what, _, _ in reported]
    for network in ("trained", "untrained"):
        assert f"measuring · kernels of the {network} network" in names
    assert reported[0][1] == 0 and reported[-1][1] == reported[-1][2]
    assert small(params=["out.*", "layers.*"]).meta["config"]["params"] == ["out.*", "layers.*"]


def test_engines_agree() -> None:
    streaming, exact = small(engine="streaming"), small(engine="exact")
    assert (streaming.meta["engine"], exact.meta["engine"]) == ("streaming", "exact")
    for name, gram in exact.grams.items():
        torch.testing.assert_close(streaming.grams[name], gram, rtol=1e-4, atol=1e-6)


def test_a_sketch_agrees_where_nothing_is_sketched_and_is_near_elsewhere() -> None:
    streaming, whole = small(), small(engine="sketch", sketch=500, probes=50)
    rough = small(engine="sketch", sketch=3, probes=50)
    assert whole.meta["engine"] == rough.meta["engine"] == "sketch"
    torch.testing.assert_close(whole.grams["residual"], streaming.grams["residual"], rtol=1e-4, atol=1e-6)
    assert (
        rough.grams["per_probe"].shape[1] == 50
    )  # no sum over the two outputs, whose sketches would be no repetitions
    error = (rough.grams["trace"] - streaming.grams["trace"]) / rough.grams["trace_stderr"]
    assert 0.3 < float(error.square().mean()) < 3
    for row in rough.summary.to_dict("records"):
        assert row["trace_low"] < row["trace"] < row["trace_high"]


def test_many_samples_have_a_kernel_for_each_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    together = small(samples=6)
    buckets = len(together.summary)
    reported: list[tuple[str, int, int]] = []
    monkeypatch.setattr(bucket_kernels, "MOST_TOGETHER", 4 * buckets + 1)
    apart = small(samples=6, refs={}, progress=lambda *step: reported.append(step))
    for name, gram in together.grams.items():
        torch.testing.assert_close(apart.grams[name], gram, rtol=1e-5, atol=1e-7)
    kernel = apart.coupling["kernel"].to_numpy().reshape(buckets, buckets)
    np.testing.assert_allclose(np.diag(kernel), 1, rtol=1e-6)
    np.testing.assert_allclose(kernel, kernel.T)
    assert (np.abs(kernel) <= 1 + 1e-6).all() and len(np.unique(kernel.round(6))) > 2
    names = list(dict.fromkeys(stage for stage, _, _ in reported))
    of_buckets = [name.partition("noise level ")[2] for name in names if "noise level " in name]
    assert of_buckets == [f"{place} of {buckets}" for place in range(1, buckets + 1)]
    assert len({total for _, _, total in reported}) == 1 and reported[-1][1] == reported[-1][2]


# --- edges


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize("probes", [1, 2, 50])
def test_the_smallest_measurements_work(count: int, samples: int, probes: int) -> None:
    buckets = Buckets.uniform(-2, 2, count=count)
    found = measure(mlp(), POINTS, buckets, samples=samples, probes=probes)
    assert sorted(found.summary.columns) == sorted(COLUMNS)
    assert len(found.summary) == count and len(found.spectra) == count * samples
    assert len(found.coupling) == count**2
    always = ("loss", "trace", "effective_rank", "amplitude", "floor", "excess", "learnability")
    assert np.isfinite(found.summary[list(always)]).all(axis=None)
    assert found.summary[["gsnr", "gain"]].isna().all().tolist() == [samples == 1] * 2
    assert found.summary["trace_low"].isna().all() == (samples < 4)
    estimated = probes == 1  # two outputs: from two probes on the trace is exact
    assert ("per_probe" in found.grams) == estimated
    assert ("trace_stderr" in found.grams) != estimated


def test_all_data_may_be_used_but_no_more() -> None:
    data = vectors(count=9)
    assert measure(linear(), data, BUCKETS, samples=9).summary["samples"].tolist() == [9, 9, 9]
    with pytest.raises(InputError, match="samples: expected at most the 9 points of the data; got 10"):
        measure(linear(), data, BUCKETS, samples=10)


def test_probes_enter_the_intervals_from_three_on() -> None:
    """With two, intervals hold the probes fixed; with three, they include the error over probes."""
    data = vectors(size=8)
    network = models.build("mlp", (8,), seed=1, width=8, depth=1, frequencies=2).double()
    denoiser = Denoiser(network, schedules.cosine(), "v", call="log_snr")
    for probes, known in ((2, False), (3, True)):
        found = measure(denoiser, data, BUCKETS, samples=32, probes=probes)
        single = found.grams["per_probe"] if known else [None] * 3
        for b, row in found.summary.iterrows():
            one = subsample_interval("effective_rank", found.grams["trace"][b], per_probe=single[b])
            names = [f"effective_rank{end}" for end in ("", "_low", "_high")]
            assert row[names].tolist() == pytest.approx([one.value, one.low, one.high], rel=1e-9)
            assert ("3 probes" in one.method) == known


class Batch(nn.Module):
    """Keeps statistics of what it sees in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return self.layer(self.norm(x))


def test_the_network_is_left_as_it_was() -> None:
    network = Batch().train()
    network.norm.eval()
    network.norm.train()
    denoiser = Denoiser(network, schedules.cosine(), "v")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure(denoiser, POINTS, BUCKETS, samples=4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(part.training for part in denoiser.modules())
    assert all(p.grad is None for p in denoiser.parameters())


def test_extra_state_that_is_no_tensor_does_no_harm() -> None:
    class Stateful(Batch):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: object) -> None: ...

    found = measure(Denoiser(Stateful(), schedules.cosine(), "v"), POINTS, BUCKETS, samples=4)
    assert len(found.meta["network"]["digest"]) == 64


def test_buckets_are_taken_as_a_count_or_as_edges() -> None:
    for given in ([-10, 0, 10], np.array([-10.0, 0.0, 10.0])):
        found = measure(mlp(), POINTS, given, samples=4, probes=1)
        assert found.summary["log_snr"].tolist() == [-5, 5]
    counted = measure(mlp(), POINTS, 2, samples=4, probes=1).summary
    assert tuple(counted["log_snr"]) == Buckets.default(schedules.cosine(), 2).centers
    assert len(measure(mlp(), POINTS, samples=2, probes=1).summary) == 10
    with pytest.raises(InputError, match=r"^buckets: expected .* got 'ten'"):
        measure(mlp(), POINTS, "ten", samples=4)


def test_noise_levels_that_the_network_never_saw_are_refused_or_marked(tmp_path: Path) -> None:
    network = Denoiser(mlp().network, schedules.linear_log_snr(-4, 4), "v", call="log_snr")
    with pytest.raises(InputError, match=r"log-SNR -4 to 4, .* got buckets at -5, 5. With extrapolate=True"):
        measure(network, POINTS, [-6, -4, 4, 6], samples=4)
    found = measure(
        network, POINTS, [-6, -4, 4, 6], samples=8, probes=1, extrapolate=True, refs={"untrained": network}
    )
    assert found.summary["extrapolated"].tolist() == [True, False, True]
    assert found.refs["untrained"].summary["extrapolated"].tolist() == [True, False, True]
    found.save(tmp_path / "found")
    again = Diagnosis.load(tmp_path / "found")
    assert again.summary["extrapolated"].tolist() == [True, False, True]
    table = measured(again, "amplitude")
    assert table.meta["extrapolated"] == [0, 2]
    within = measure(network, POINTS, [-4, 4], samples=4, probes=1)
    assert within.summary["extrapolated"].tolist() == [False]


# --- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 0}, "^samples: expected an integer of at least 1; got 0"),
        ({"samples": 257}, "^samples: expected at most the 256 points"),
        ({"probes": 0}, "^probes: expected an integer of at least 1"),
        ({"seed": -1}, "^seed: expected an integer of at least 0"),
        ({"engine": "warp"}, "^engine: expected one of"),
        ({"params": "head*"}, "^params: expected a pattern"),
        ({"refs": {"a": mlp("x0")}}, "^reference 'a': expected the network's target v; got x0"),
        (
            {"refs": {"a": mlp(schedule=schedules.flow())}},
            r"^reference 'a': expected the network's schedule cosine",
        ),
        ({"refs": {"../a": mlp()}}, r"^reference '\.\./a': expected a name of letters"),
    ],
)
def test_bad_input_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        small(**change)


def test_references_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any, **settings: Any) -> None:
        raise AssertionError("work was done")

    # The module by its full name: as an attribute of the package that name is the function.
    monkeypatch.setattr(sys.modules["ntkdiag.diagnosis.measure"], "measure_kernels", never)
    with pytest.raises(InputError, match="reference 'a'"):
        small(refs={"a": mlp("x0")})


def test_a_network_that_does_not_take_the_data_is_refused() -> None:
    with pytest.raises(InputError, match=r"^network input x: expected shape \[N, 2\]; got \[1, 6\]"):
        measure(mlp(), vectors(), BUCKETS, samples=4)
    wrong = Denoiser(nn.Linear(3, 3), schedules.cosine(), "v", call=lambda net, x, *rest: net(x))
    with pytest.raises(
        InputError, match=r"^network: expected a forward on data of shape \(1, 2\); got RuntimeError"
    ):
        measure(wrong, POINTS, BUCKETS, samples=4)
    empty = Denoiser(nn.Identity(), schedules.cosine(), "v", call=lambda net, x, *rest: x)
    with pytest.raises(InputError, match=r"^network: expected a network with parameters; got none"):
        measure(empty, POINTS, BUCKETS, samples=4)


def test_a_network_of_nan_is_a_failed_measurement() -> None:
    denoiser = mlp()
    with torch.no_grad():
        denoiser.network.out.weight.fill_(math.nan)
    with pytest.raises(MeasurementError, match="NaN"):
        measure(denoiser, POINTS, BUCKETS, samples=4)


def test_buckets_of_a_large_network_are_measured_one_by_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = small(probes=2, samples=24)
    monkeypatch.setattr("ntkdiag.diagnosis.bucket_kernels.MOST_AT_ONCE", 0.0)
    apart = small(probes=2, samples=24, resume=tmp_path)
    for one, other in ((whole, apart), (whole.refs["untrained"], apart.refs["untrained"])):
        torch.testing.assert_close(one.grams["trace"], other.grams["trace"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(one.grams["residual"], other.grams["residual"], rtol=0, atol=0)
    few = small(probes=2, samples=24, refs={}).coupling[
        "kernel"
    ]  # between the first three samples of each bucket
    assert few.equals(apart.coupling["kernel"]) and not few.equals(whole.coupling["kernel"])
    assert (
        len(list(tmp_path.iterdir())) == 2 * 6 + 2
    )  # a part each: outputs, gradients, 3 buckets, between, noise


def test_how_many_samples_are_taken_together() -> None:
    assert samples_together(10, 64, 8, operations=0) == MOST_TOGETHER
    assert samples_together(10, 64, 8, operations=97_000_000) == MOST_TOGETHER
    assert samples_together(10, 64, 8, operations=98_000_000) == 80
    assert samples_together(3, 16, 3, operations=6_000_000_000) == 6
    assert samples_together(1, 1, 1, operations=10**13) == 2

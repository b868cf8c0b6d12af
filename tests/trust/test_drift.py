"""Kernels along a run: none of a linear network's drifts, a turned one's does, and the words follow the steps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from trust_cases import Square, linear_denoiser, small_data, with_x_alone

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process.buckets import Buckets
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.state_dicts import save_weights
from ntkdiag.train.checkpoints.run_folder import kept_weights
from ntkdiag.trust.along_training import when_it_falls

SMALL = {"buckets": 3, "samples": 8, "probes": 3}
KEEPING = nd.train.TrainConfig(steps=7, batch=16, learning_rate=0.1, warmup=0, keep_every=3)


def test_a_run_keeps_the_initial_the_asked_and_the_last_weights(tmp_path):
    denoiser = linear_denoiser()
    before = denoiser.network.weight.clone()
    result = nd.train.train(denoiser, small_data(), None, KEEPING, out=tmp_path / "run")
    kept = kept_weights(tmp_path / "run")
    assert list(kept) == [0, 3, 6, 7]
    fresh = linear_denoiser()
    for step, weight in ((0, before), (7, result.denoiser.network.weight)):
        nd.train.load_weights(fresh, kept[step])
        assert torch.equal(fresh.network.weight, weight)


def test_a_run_without_keep_every_keeps_nothing_and_a_resumed_one_goes_on(tmp_path):
    out = tmp_path / "run"
    none = dataclasses.replace(KEEPING, keep_every=0)
    nd.train.train(linear_denoiser(), small_data(), None, none, out=out)
    assert not (out / "kept").exists()
    with pytest.raises(InputError, match=r"keep_every=500"):
        nd.trust.drift(out, linear_denoiser(), small_data(), **SMALL)
    more = dataclasses.replace(KEEPING, steps=9)
    nd.train.train(linear_denoiser(), small_data(), None, more, out=out, resume=True)
    assert sorted(path.name for path in (out / "kept").iterdir()) == ["step-00000009.safetensors"]


def test_a_linear_network_does_not_drift(tmp_path):
    denoiser = linear_denoiser(torch.float64)
    nd.train.train(denoiser, small_data(), None, KEEPING, out=tmp_path / "run")
    found = nd.trust.drift(tmp_path / "run", linear_denoiser(torch.float64), small_data(), **SMALL)
    assert found.steps == [0, 3, 6, 7]
    assert (found.table["alignment"] - 1).abs().max() < 1e-12
    assert (found.table["top_overlap"] - 1).abs().max() < 1e-9
    by_bucket = found.table.groupby("bucket")
    for name in ("trace", "effective_rank", "centred_effective_rank", "shared_share"):
        spread = by_bucket[name].max() - by_bucket[name].min()
        assert (spread <= 1e-12 * by_bucket[name].max()).all()
    assert "at step 0 1.00 to 1.00, at step 6 1.00 to 1.00." in found.text


def test_a_network_that_learns_drifts(tmp_path):
    network = nd.models.build("mlp", (2,), width=16, depth=1, frequencies=4)
    denoiser = nd.Denoiser(network, nd.schedules.cosine(), "v", call="log_snr")
    config = nd.train.TrainConfig(
        steps=60, batch=32, learning_rate=3e-2, warmup=0, ema_decay=0.5, keep_every=30
    )
    nd.train.train(denoiser, small_data(), None, config, out=tmp_path / "run")
    found = nd.trust.drift(tmp_path / "run", denoiser, small_data(), **SMALL)
    alignment = found.table.groupby("step")["alignment"].min()
    assert alignment[0] < 0.99 and alignment[60] == pytest.approx(1)
    assert set(found.ends["word"]) <= {"falls", "rises", "absent", "cannot say"}
    assert len(found.ends) == 3 * 2 * 2


def test_steps_by_hand_and_the_truth_of_a_kernel(tmp_path):
    """f = W x: the trace kernel is (x·x' + 1), whatever W."""
    files = {}
    for step, scale in ((10, 1.0), (0, 5.0)):
        denoiser = with_x_alone(torch.nn.Linear(2, 2).double())
        torch.nn.init.constant_(denoiser.network.weight, scale)
        files[step] = tmp_path / f"{step}.safetensors"
        save_weights(denoiser, files[step])
    found = nd.trust.drift(files, linear_denoiser(torch.float64), small_data(), **SMALL)
    assert found.steps == [0, 10]
    schedule = nd.schedules.cosine()
    x = PairedDraws.draw(small_data().train, 8, 0)
    levels = Buckets.of(3, schedule)
    for bucket, center in enumerate(levels.centers):
        noisy = schedule.diffuse(x.x0.double(), x.epsilon.double(), center)
        traces = found.table.loc[found.table["bucket"] == bucket, "trace"]
        assert traces.tolist() == pytest.approx([float(noisy.square().sum(1).mean() + 1)] * 2)


def test_when_a_fall_appears_and_whether_it_stays():
    steps = [0, 100, 200, 300]
    assert when_it_falls(steps, ["absent", "cannot say", "rises", "absent"]).startswith(
        "falls at no measured"
    )
    assert (
        when_it_falls(steps, ["absent", "falls", "falls", "falls"])
        == "falls from step 100 on and at the last one"
    )
    assert when_it_falls(steps, ["absent", "falls", "absent", "falls"]).endswith("not at every step between")
    gone = when_it_falls(steps, ["falls", "falls", "absent", "cannot say"])
    assert gone == "falls from step 0 on; at step 300: cannot say"


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="the folder of a training run"):
        nd.trust.drift(tmp_path / "none", linear_denoiser(), small_data(), **SMALL)
    save_weights(linear_denoiser(), tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="at least two steps"):
        nd.trust.drift({0: tmp_path / "one.safetensors"}, linear_denoiser(), small_data(), **SMALL)
    with pytest.raises(InputError, match="samples"):
        nd.trust.drift(tmp_path, linear_denoiser(), small_data(), samples=1)


def test_a_step_without_a_kernel_has_no_alignment_and_the_others_have(tmp_path):
    """f = w² x at w = 0 has no gradient; a network may start like that."""
    files = {}
    for step, weight in ((0, 0.0), (10, 1.0), (20, 2.0)):
        denoiser = with_x_alone(Square())
        torch.nn.init.constant_(denoiser.network.w, weight)
        files[step] = tmp_path / f"{step}.safetensors"
        save_weights(denoiser, files[step])
    found = nd.trust.drift(files, with_x_alone(Square()), small_data(), **SMALL)
    by_step = found.table.groupby("step")
    assert (
        by_step["trace"].max()[0] == 0 and found.table.loc[found.table["step"] == 0, "alignment"].isna().all()
    )
    assert by_step["alignment"].min()[10] == pytest.approx(1)
    assert set(found.ends.loc[found.ends["step"] == 0, "word"]) == {"cannot say"}
    assert "(1: the same kernel): at step 10 1.00 to 1.00." in found.text and "nan" not in found.text

"""The folder of a run: what is in it, when it may be replaced, and which runs may be resumed in it."""

from __future__ import annotations

import dataclasses
import json

import pandas as pd
import pytest
import safetensors.torch
import torch
from train_cases import QUICK, Doubling, small_data, small_denoiser

import ntkdiag as nd
from ntkdiag.errors import InputError
from ntkdiag.process import schedules
from ntkdiag.process.buckets import Buckets
from ntkdiag.train import load_weights, train
from ntkdiag.train.checkpoints.checkpoint import read_manifest


def test_a_finished_folder_holds_the_average_the_history_and_one_checkpoint(tmp_path):
    out = tmp_path / "deep" / "run"
    result = train(small_denoiser(), small_data(), None, QUICK, out=out, notes={"why": "a test"})
    names = sorted(path.name for path in out.iterdir())
    assert names == ["average.safetensors", "checkpoint-00000012.safetensors", "history.csv", "training.json"]
    fresh = small_denoiser(seed=9)
    load_weights(fresh, out / "average.safetensors")
    assert torch.equal(fresh.network.out.weight, result.denoiser.network.out.weight)
    pd.testing.assert_frame_equal(pd.read_csv(out / "history.csv"), result.history)
    manifest = json.loads((out / "training.json").read_text())
    assert manifest["notes"] == {"why": "a test"}
    assert manifest["config"]["learning_rate"] == QUICK.learning_rate
    assert manifest["problem"]["data"] == {"name": "mixture", "digest": small_data().digest, "shape": [2]}
    assert manifest["problem"]["schedule"] == {"name": "cosine"}
    assert "torch" in manifest["environment"]
    modes = {path.stat().st_mode & 0o777 for path in out.iterdir()}
    assert len(modes) == 1, modes  # all as the umask has it


def test_a_folder_in_use_is_refused_before_any_work(tmp_path):
    out = tmp_path / "run"
    train(small_denoiser(), small_data(), None, QUICK, out=out)
    before = (out / "training.json").read_bytes()
    denoiser = small_denoiser()
    with pytest.raises(InputError, match="holds another run"):
        train(denoiser, small_data(), None, QUICK, out=out)
    assert torch.equal(denoiser.network.out.weight, small_denoiser().network.out.weight)
    assert (out / "training.json").read_bytes() == before
    replaced = dataclasses.replace(QUICK, steps=3)
    train(small_denoiser(), small_data(), None, replaced, out=out, force=True)
    assert read_manifest(out).step == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(InputError, match="other files in it"):
        train(small_denoiser(), small_data(), None, QUICK, out=tmp_path / "mine", force=True)


def test_resuming_needs_a_run_to_resume(tmp_path):
    with pytest.raises(InputError, match="resume: expected out="):
        train(small_denoiser(), small_data(), None, QUICK, resume=True)
    with pytest.raises(InputError, match=r"folder with a training run in it; got no training\.json there"):
        train(small_denoiser(), small_data(), None, QUICK, out=tmp_path / "none", resume=True)


def other_shape():
    network = nd.models.build("dit", (1, 8, 8), width=8, depth=1, heads=2)
    return nd.Denoiser(network, schedules.cosine(), "v", call="log_snr")


def test_resuming_another_run_is_refused_naming_the_difference(tmp_path):
    out = tmp_path / "run"
    train(small_denoiser(), small_data(), None, QUICK, out=out)
    data, again = small_data(), {"out": out, "resume": True}
    with pytest.raises(InputError, match=r"learning_rate of the run.*expected 0\.01, as before; got 0\.5"):
        train(small_denoiser(), data, None, dataclasses.replace(QUICK, learning_rate=0.5), **again)
    with pytest.raises(
        InputError, match=r"digest of the data of the run to resume in .*expected [0-9a-f]{64}, as before"
    ):
        train(small_denoiser(), small_data(seed=1), None, QUICK, **again)
    with pytest.raises(
        InputError, match=r"shape of the data of .*expected \[2\], as before; got \[1, 8, 8\]"
    ):
        train(other_shape(), nd.data.load("digits"), None, QUICK, **again)
    with pytest.raises(InputError, match=r"target of the run.*expected v, as before; got x0\."):
        train(small_denoiser(name="x0"), data, None, QUICK, **again)
    with pytest.raises(InputError, match="schedule of the run"):
        train(small_denoiser(schedule=schedules.flow()), data, None, QUICK, **again)
    with pytest.raises(InputError, match="buckets of the run"):
        train(small_denoiser(), data, None, QUICK, buckets=Buckets.uniform(-1, 1, 2), **again)
    other = small_denoiser()
    other.network.out = torch.nn.Linear(8, 2, bias=False)
    with pytest.raises(InputError, match=r"run: model for MLP.*1 unexpected \(first: out\.bias"):
        train(other, data, None, QUICK, **again)


def alter(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_a_tampered_record_is_refused(tmp_path):
    out = tmp_path / "run"
    train(small_denoiser(), small_data(), None, QUICK, out=out)
    record = out / "training.json"
    whole = record.read_text()
    for changes, words in (
        ({"tensors": "../../other.safetensors"}, "tensors: String should match"),
        ({"step": -1}, "step: Input should be greater"),
        ({"format": 2}, "format: Input should be 1"),
        ({"surprise": 1}, "surprise: Extra inputs"),
        ({"problem": {"target": "v"}}, "problem: .*no name, digest and shape of the data"),
    ):
        alter(record, **changes)
        with pytest.raises(InputError, match=words):
            train(small_denoiser(), small_data(), None, QUICK, out=out, resume=True)
        record.write_text(whole)
    record.write_text("{")
    with pytest.raises(InputError, match="expected a training record"):
        train(small_denoiser(), small_data(), None, QUICK, out=out, resume=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.out.bias", "model for MLP.*1 missing"),
        ("average.out.bias", "average for MLP.*1 missing"),
        ("optimizer.out.bias/exp_avg", r"optimizer.*1 missing \(first: out.bias/exp_avg \[2\]\)"),
        ("generator.noise", "generators.*1 missing"),
        ("meter.sums", "meter.*1 missing"),
    ],
)
def test_a_checkpoint_with_a_part_missing_is_refused(tmp_path, name, words):
    out = tmp_path / "run"
    train(small_denoiser(), small_data(), None, QUICK, out=out)
    path = out / "checkpoint-00000012.safetensors"
    tensors = safetensors.torch.load_file(path)
    del tensors[name]
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(InputError, match=words):
        train(small_denoiser(), small_data(), None, QUICK, out=out, resume=True)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_last_checkpoints_are_kept_and_one_can_go_back(tmp_path, keep):
    out = tmp_path / "run"
    config = dataclasses.replace(QUICK, checkpoint_every=3, keep_checkpoints=keep)
    whole = train(small_denoiser(), small_data(), Doubling(), config, out=out)
    names = sorted(path.name for path in out.glob("checkpoint-*"))
    kinds = [".safetensors"] if keep == 1 else [".json", ".safetensors"]
    assert names == [f"checkpoint-{step:08d}{kind}" for step in (3, 6, 9, 12)[-keep:] for kind in kinds]
    if keep == 1:
        return
    (out / "training.json").write_bytes((out / "checkpoint-00000009.json").read_bytes())
    assert read_manifest(out).step == 9
    again = train(small_denoiser(), small_data(), Doubling(), config, out=out, resume=True)
    assert all(
        torch.equal(value, again.denoiser.state_dict()[n]) for n, value in whole.denoiser.state_dict().items()
    )
    assert sorted(path.name for path in out.glob("checkpoint-*")) == names

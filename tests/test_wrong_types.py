"""What people type first and wrongly is refused in one line, which says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ntkdiag as nd
from ntkdiag.errors import InputError

POINTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
NETWORK = nd.models.build("mlp", (2,), width=8)
COSINE = nd.schedules.cosine()
DENOISER = nd.Denoiser(NETWORK, COSINE, "v", call="log_snr")
TABLE = nd.weights.rule("erd", "v")
WRAP = "Say what the network was trained on: nd.Denoiser(network, schedule, target)."
MEASURE = "Measure a network with nd.measure, or read a folder with nd.Diagnosis.load."


class Scheduler:
    """Like a scheduler of another library: no schedule of this one."""

    def __repr__(self) -> str:
        return "a whole configuration " * 100


def measure(**given: Any) -> Any:
    """A small measurement with arguments replaced by others."""
    arguments = {"denoiser": DENOISER, "data": POINTS, "buckets": 4, "samples": 8} | given
    return nd.measure(**arguments)


# The call, and what its message contains.
CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "scheduler": (
        lambda: nd.Denoiser(NETWORK, Scheduler()),  # type: ignore[arg-type]
        "got Scheduler. Read a scheduler of the diffusers library with nd.schedules.from_diffusers(scheduler).",
    ),
    "schedule's name": (lambda: nd.Denoiser(NETWORK, "cosine", "v"), "nd.schedules.cosine(); got 'cosine'"),
    "schedule not called": (
        lambda: nd.Denoiser(NETWORK, nd.schedules.edm, "v"),
        "got function. Call it: nd.schedules.edm().",
    ),
    "network is a function": (
        lambda: nd.Denoiser(lambda x: x, COSINE, "v"),
        "a torch.nn.Module; got function",
    ),
    "network is a class": (lambda: nd.Denoiser(type(NETWORK), COSINE, "v"), "got the class MLP"),
    "denoiser twice": (lambda: nd.Denoiser(DENOISER, COSINE, "v"), "a Denoiser, which is one already"),
    "x is an array": (lambda: DENOISER(POINTS.numpy(), 0.0), "got ndarray. Convert it with torch.as_tensor."),
    "log_snr is a text": (lambda: DENOISER(POINTS, "0"), "a number or a tensor of numbers; got '0'"),
    "log_snr is None": (lambda: COSINE.alpha(None), "a number or a tensor of numbers; got None"),
    "measure a network": (lambda: measure(denoiser=NETWORK), f"an ntkdiag.Denoiser; got MLP. {WRAP}"),
    "measure on a number": (lambda: measure(data=3), "a DataLoader, rows of samples, or a path; got int"),
    "measure on nothing": (lambda: measure(data=None), "or a path; got None"),
    "buckets by name": (lambda: measure(buckets="ten"), "a count such as 10, or edges"),
    "buckets not whole": (lambda: measure(buckets=2.5), "a count such as 10, or edges"),
    "reference alone": (lambda: measure(refs=DENOISER), "such as {'untrained': denoiser}; got Denoiser"),
    "bare reference": (
        lambda: measure(refs={"untrained": NETWORK}),
        f"reference 'untrained': expected an ntkdiag.Denoiser; got MLP. {WRAP}",
    ),
    "reference by number": (lambda: measure(refs={1: DENOISER}), "a text such as 'untrained'; got int"),
    "params": (lambda: measure(params=3), "name patterns such as 'blocks.*'; got int"),
    "memory": (lambda: measure(memory="2G"), "memory, in bytes: expected an integer"),
    "full": (lambda: measure(full=True), "nd.FullSettings(), or None for the trace kernel alone; got bool"),
    "verify a network": (lambda: nd.verify(NETWORK, POINTS), WRAP),
    "verify without data": (lambda: nd.verify(DENOISER), "Write nd.verify(denoiser, data)."),
    "verify a folder": (
        lambda: nd.verify("runs/one"),
        "got str. Read a folder with nd.Diagnosis.load(folder).",
    ),
    "verify nothing": (lambda: nd.verify([]), "got an empty list"),
    "verify other things": (lambda: nd.verify([DENOISER]), "a list of diagnoses; got Denoiser"),
    "fresh is a network": (
        lambda: nd.verify(DENOISER, POINTS, 4, fresh=DENOISER),
        "a function from a seed to a Denoiser; got Denoiser",
    ),
    "fresh gives a network": (
        lambda: nd.verify(DENOISER, POINTS, 4, fresh=lambda seed: NETWORK),
        f"a fresh network: expected an ntkdiag.Denoiser; got MLP. {WRAP}",
    ),
    "module report": (
        lambda: nd.report(DENOISER),
        "Write diagnosis.report('page.html'), or nd.report.write_page(",
    ),
    "module train": (
        lambda: nd.train(DENOISER),
        "nd.train: expected a function of this module; got a call of the module itself. Write nd.train.train(",
    ),
    "module data": (lambda: nd.data("digits"), "Write nd.data.load('digits')"),
    "module models": (lambda: nd.models("mlp"), "Write nd.models.build('mlp', shape)."),
    "module schedules": (lambda: nd.schedules("cosine"), "nd.schedules: expected a function"),
    "module spectra": (lambda: nd.spectra(POINTS), "Write nd.spectra.effective_rank(gram)."),
    "module weights": (lambda: nd.weights("erd"), "Write nd.weights.rule('erd', target)"),
    "page of a network": (lambda: nd.report.write_page("page.html", DENOISER), f"got Denoiser. {MEASURE}"),
    "page without a path": (
        lambda: nd.report.write_page(3, DENOISER),
        "a path, as text or pathlib.Path; got int",
    ),
    "figure of a network": (
        lambda: nd.report.plot(DENOISER, "effective_rank", "r.png"),
        f"got Denoiser. {MEASURE}",
    ),
    "figures of a network": (lambda: nd.report.save_figures("figures", DENOISER), f"got Denoiser. {MEASURE}"),
    "table of a network": (lambda: nd.report.summary_table(DENOISER), f"got Denoiser. {MEASURE}"),
    "load nothing": (lambda: nd.Diagnosis.load(None), "a path, as text or pathlib.Path; got None"),
    "weights of a name": (lambda: nd.weights.measured("o3"), f"as nd.measure gives it; got str. {MEASURE}"),
    "weights of a network": (lambda: nd.weights.measured(DENOISER), f"got Denoiser. {MEASURE}"),
    "table of texts": (
        lambda: nd.WeightTable(["a"], [1], "v"),
        "log_snr: expected a number or a tensor of numbers; got list",
    ),
    "table of nothing": (
        lambda: nd.WeightTable(None, None, "v"),
        "log_snr: expected a number or a tensor of numbers; got None",
    ),
    "table without a name": (
        lambda: nd.WeightTable([0, 1], [1, 1], "v", name=3),
        "one line of text; got int",
    ),
    "table at a text": (lambda: TABLE("x"), "a number or a tensor of numbers; got 'x'"),
    "table at no time": (lambda: TABLE.from_timesteps(COSINE, "x"), "timesteps: expected a number"),
    "table at no sigma": (lambda: TABLE.from_sigmas("x"), "sigma: expected a number"),
    "table for a scheduler": (
        lambda: TABLE.normalised(Scheduler()),
        "nd.schedules.from_diffusers(scheduler)",
    ),
    "steps of a scheduler": (lambda: TABLE.to_steps(Scheduler()), "nd.schedules.from_diffusers(scheduler)"),
    "table into a number": (lambda: TABLE.save(3), "a path, as text or pathlib.Path; got int"),
    "table from a number": (lambda: nd.WeightTable.load(3), "a path, as text or pathlib.Path; got int"),
    "gram of a network": (lambda: nd.gram(NETWORK, POINTS, 0.0), WRAP),
    "gram of data": (
        lambda: nd.gram(DENOISER, nd.data.as_data(POINTS), 0.0),
        "x0: expected a tensor [N, ...]; got Data",
    ),
    "gram at a text": (lambda: nd.gram(DENOISER, POINTS, "x"), "a number or a tensor of numbers; got 'x'"),
    "gram of a function": (
        lambda: nd.gram_of(lambda x: x, (POINTS,), POINTS[:1]),
        "a torch.nn.Module; got function",
    ),
    "operator of a network": (lambda: nd.NTKOperator(NETWORK, POINTS, 0.0), WRAP),
    "bucket count": (lambda: nd.Buckets(3), "For a count of buckets write nd.Buckets.of(count, schedule)."),
    "bucket texts": (lambda: nd.Buckets(["a", "b"]), "log-SNR values such as (-10, -5, 0, 5); got list"),
    "bucket range": (
        lambda: nd.Buckets.uniform(0, "5", 3),
        "finite log-SNR, low < high; got 0 to '5'",
    ),
    "buckets of a scheduler": (
        lambda: nd.Buckets.default(Scheduler()),
        "nd.schedules.from_diffusers(scheduler)",
    ),
    "data from a number": (lambda: nd.data.load(3), "a path, as text or pathlib.Path; got int"),
    "data without samples": (lambda: nd.data.Data("line", train=None), "a tensor [N, ...]; got None"),
    "data without a name": (lambda: nd.data.Data(POINTS, POINTS), "Give the name first, then the samples."),
    "shape is a number": (
        lambda: nd.models.build("mlp", 2),
        "the shape of one sample, such as (1, 8, 8); got int",
    ),
    "train a network": (lambda: nd.train.train(NETWORK, POINTS, None, nd.train.TrainConfig()), WRAP),
    "train with a name": (
        lambda: nd.train.train(DENOISER, POINTS, "erd", nd.train.TrainConfig()),
        "got 'erd'. Make a table of a rule with nd.weights.rule(",
    ),
    "train with a dict": (
        lambda: nd.train.train(DENOISER, POINTS, None, {"steps": 3}),
        "nd.train.TrainConfig(), with settings as its arguments; got dict",
    ),
    "sample from a network": (lambda: nd.train.sample(NETWORK, 3, (2,)), WRAP),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_type_is_one_line_that_says_what_to_write(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call, words = CASES[case]
    with pytest.raises(InputError) as caught:
        call()
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and len(message) < 400
    assert list(tmp_path.iterdir()) == []


def test_what_has_one_meaning_is_taken() -> None:
    assert nd.Buckets([-4, 0, 2]) == nd.Buckets.from_edges((-4.0, 0.0, 2.0))
    assert nd.Buckets(np.array([-4, 0, 2])).centers == (-2.0, 1.0)
    assert nd.Buckets(torch.tensor([-4, 0, 2])).edges == (-4.0, 0.0, 2.0)
    assert nd.Buckets.from_edges(edge for edge in (-4, 0, 2)).edges == (-4.0, 0.0, 2.0)
    assert torch.equal(TABLE([0, 1]), TABLE(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    of_array, of_tensor = (nd.gram(DENOISER, x, 0.0, probes=2) for x in (POINTS[:4].numpy(), POINTS[:4]))
    assert torch.equal(of_array.matrix, of_tensor.matrix)


def test_the_scheduler_of_diffusers_itself() -> None:
    DDPMScheduler = pytest.importorskip("diffusers").DDPMScheduler
    with pytest.raises(InputError, match=r"got DDPMScheduler\. Read .* with nd\.schedules\.from_diffusers"):
        nd.Denoiser(NETWORK, DDPMScheduler())

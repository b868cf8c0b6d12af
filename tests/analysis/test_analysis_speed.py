"""The speed study at a tiny size, and what it counts as met."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.speed import check
from analysis.speed.run import HERE, MEMORY_WAYS, case_of, profiled, ratios, study, ways_of

CONFIG = json.loads((HERE / "config.json").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without the processes for two of the ways: each starts in seconds, and runs what the others run."""
    out = tmp_path_factory.mktemp("speed")
    assert set(MEMORY_WAYS) <= {"nothing", *ways_of(case_of(CONFIG["tiny"], "T=4, N=3", 1))}
    kept, answers = subprocess.run, list[Any]()

    def started(call: list[str], **options: Any) -> Any:
        if call[-1] not in MEMORY_WAYS[2:]:
            answers.append(kept(call, **options))
        return answers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analysis.speed.run.subprocess.run", started)
        study("tiny", out)
    return out


def test_every_way_is_timed_on_every_network(results: Path) -> None:
    times = pd.read_csv(results / "times.csv")
    assert list(times.way) == [
        "training step",
        "kernel, 1 probe",
        "kernel, 3 probes",
        "torch.func",
        "torch.func, written-out attention",
    ]
    assert (times.fastest <= times.seconds).all()
    assert (times.seconds <= times.slowest).all()
    assert times.ratio_to_step[0] == 1


def test_memory_is_each_processs_own(results: Path) -> None:
    memory = pd.read_csv(results / "memory.csv").set_index("way")
    assert (memory.peak_mib >= memory.ready_mib).all()
    assert memory.peak_mib["nothing"] < memory.peak_mib["training step"]
    assert memory.ready_mib.max() < 1.2 * memory.ready_mib.min()


def test_the_machine_is_named(results: Path) -> None:
    assert {"cpu", "cores", "torch", "threads"} <= json.loads((results / "machine.json").read_text()).keys()


def frames(one: float, several: float, peak: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Made-up times and peaks of the tiny network: a step takes 1 s and 100 MiB, torch.func 2.5 s and 400 MiB."""
    ways = ["training step", "kernel, 1 probe", "kernel, 3 probes"]
    ways += ["torch.func", "torch.func, written-out attention"]
    seconds = [1.0, one, several, 2.5, 3.0]
    times = pd.DataFrame({"network": "T=4, N=3", "way": ways, "seconds": seconds, "ratio_to_step": seconds})
    memory = pd.DataFrame(
        {"network": "T=4, N=3", "way": [*ways[:2], ways[3]], "peak_mib": [100.0, peak, 400.0]}
    )
    return times, memory


def test_ratios_by_hand() -> None:
    table = ratios(CONFIG["tiny"], *frames(1.25, 2.75, 100)).set_index("ratio")
    assert table.value["time of one probe / training step"] == pytest.approx(1.25)
    assert table.limit["time of one probe / training step"] == pytest.approx(1.1 * 1.25)
    assert table.value["time of a further probe / first"] == pytest.approx(0.6)
    assert table.value["time of torch.func, warm / one probe"] == pytest.approx(2.0)
    assert table.value["peak memory of torch.func / one probe"] == pytest.approx(4.0)
    assert table.met.all()


@pytest.mark.parametrize(
    ("one", "several", "peak", "missed"),
    [
        (1.40, 2.0, 90, {"time of one probe / training step"}),
        (1.25, 3.5, 90, {"time of a further probe / first"}),
        (1.25, 2.0, 111, {"peak memory / training step", "peak memory of torch.func / one probe"}),
        (
            1.60,
            2.0,
            90,
            {"time of one probe / training step", "time of torch.func, warm / one probe"},
        ),
    ],
)
def test_a_missed_limit_is_said(one: float, several: float, peak: float, missed: set[str]) -> None:
    table = ratios(CONFIG["tiny"], *frames(one, several, peak))
    assert set(table.ratio[~table.met]) == missed


def test_the_profile_names_operations(tmp_path: Path) -> None:
    profiled(CONFIG["tiny"], tmp_path)
    table = pd.read_csv(tmp_path / "profile_T4_N3_kernel_1_probe.csv")
    assert table.share.between(0, 1).all()
    assert table.operation.str.startswith("aten::").any()


def test_the_share_of_the_check_is_measured() -> None:
    kernel, whole = check.of_a_kernel(CONFIG["tiny"], "T=4, N=3"), check.of_a_measurement(CONFIG["tiny"])
    product = check.of_an_operator(CONFIG["tiny"], "T=4, N=3")
    assert kernel["limit"] == 0.1
    assert product["limit"] == pytest.approx(0.25 * 32 / 3)
    assert product["share"] > 0
    assert 0 < whole["share"] < 1
    assert whole["met"] == (whole["share"] <= 0.01)

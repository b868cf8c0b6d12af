"""What do refreshed weights cost, relative to the same training without them? See README.md.

python -m analysis.refresh.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from torch import Tensor

from analysis import command_line
from analysis.fresh_network import fresh_network
from analysis.refresh.errors import errors
from analysis.stopwatch import machine
from ntkdiag.cli.inputs.loading import LoadedModel
from ntkdiag.cli.inputs.weighting import weight_source
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.train import TrainConfig, train
from ntkdiag.weights import Refresher, WeightSource

HERE = Path(__file__).parent
# Largest share of training time that refreshing may take with default settings.
LIMIT = 0.015
# Steps of the preset, and steps between two refreshes.
PRESET, EVERY = 4000, 500
WITHOUT, WITH = "without", "refreshed"


def seconds(call: Callable[[], Any]) -> float:
    """Processor seconds of one call, which other load on the machine affects least."""
    start = time.process_time()
    call()
    return time.process_time() - start


class TimedRefresher:
    """A refresher whose time is measured.

    Attributes:
        refreshing: Seconds spent in refreshes.
        reading: Seconds spent in evaluating weights.
    """

    def __init__(self, source: Refresher) -> None:
        self.source, self.target = source, source.target
        self.refreshing = self.reading = 0.0

    def __call__(self, log_snr: Tensor) -> Tensor:
        found: list[Tensor] = []
        self.reading += seconds(lambda: found.append(self.source(log_snr)))
        return found[0]

    def after_step(self, step: int) -> None:
        self.refreshing += seconds(lambda: self.source.after_step(step))

    def state_dict(self) -> dict[str, Any]:
        return self.source.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state)


def digits_dit(options: dict[str, int]) -> LoadedModel:
    """The network and data of `ntkdiag train --model dit --data digits`."""
    return fresh_network("dit", options, "digits", "v")


def trained(start: LoadedModel, weights: WeightSource | None, steps: int) -> None:
    """Train a copy of the start with the preset."""
    train(copy.deepcopy(start.denoiser), start.data, weights, TrainConfig.preset("digits", steps=steps))


def refreshed(start: LoadedModel, text: str, steps: int) -> dict[str, float]:
    """Train a copy with refreshed weights; returns the seconds of its parts."""
    fresh = copy.deepcopy(start.denoiser)
    made: list[Refresher] = []

    def prepare() -> None:
        source = weight_source(text, LoadedModel(fresh, start.data, start.recipe, False), 0)
        assert isinstance(source, Refresher)
        made.append(source)

    beginning = seconds(prepare)
    timed = TimedRefresher(made[0])
    train(fresh, start.data, timed, TrainConfig.preset("digits", steps=steps))
    assert all(record.accepted for record in made[0].history), "a refresh that failed costs less"
    return {"beginning": beginning, "refreshing": timed.refreshing, "reading": timed.reading,
            "refreshes": len(made[0].history)}  # fmt: skip


def rounds(network: str, config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per round: seconds of both trainings, the order alternating."""
    start, steps = digits_dit(config["networks"][network]), config["steps"]
    watched: list[dict[str, float]] = []
    ways = {
        WITHOUT: lambda: trained(start, None, steps),
        WITH: lambda: watched.append(refreshed(start, config["weights"], steps)),
    }
    rows = []
    for turn in range(config["rounds"]):
        order = list(ways) if turn % 2 == 0 else list(ways)[::-1]
        times = {way: seconds(ways[way]) for way in order}
        parts = watched[-1]
        # The kernel's scale is measured once before the first step, however long the training is.
        times[WITH] -= parts["beginning"]
        rows.append({"network": network, "round": turn, **times, **parts})
        print(
            f"{network:16} round {turn}: {times[WITHOUT]:6.2f} s without, {times[WITH]:6.2f} s refreshed",
            flush=True,
        )
    return rows


def summary(table: pd.DataFrame, steps: int) -> pd.DataFrame:
    """One row per network: overhead and share of refreshing, the limit, and whether the share meets it.

    overhead: refreshed / without − 1, the median of the rounds, with the smallest and the largest: a difference of two
    trainings, which on a shared machine is noise of several percent. share: seconds in refreshes and in evaluating weights,
    divided by the rest of the same run, so that differences between runs play no part; refreshing and reading are its parts.
    share_of_preset: the share over all steps of the preset, with the measurement before the first step.
    """
    rows = []
    for network, part in table.groupby("network", sort=False):
        ratio = part[WITH] / part[WITHOUT] - 1
        inside = part.refreshing + part.reading
        step = median((part[WITH] - inside) / steps)
        share = median(inside / (part[WITH] - inside))
        one = median(part.refreshing / part.refreshes)
        rows.append(
            {
                "network": network,
                "seconds_a_step": step,
                "seconds_a_refresh": one,
                "refresh_in_steps": one / step,
                "beginning_in_steps": median(part.beginning) / step,
                "share_of_preset": (median(part.beginning) / step + PRESET // EVERY * one / step) / PRESET,
                "overhead": median(ratio),
                "overhead_least": ratio.min(),
                "overhead_most": ratio.max(),
                "share": share,
                "limit": LIMIT,
                "refreshing": median(part.refreshing / (part[WITH] - inside)),
                "reading": median(part.reading / (part[WITH] - inside)),
                "met": share <= LIMIT,
            }
        )
    return pd.DataFrame(rows)


def study(size: str, out: Path) -> None:
    """Write rounds and summary to `out`."""
    config = command_line.settings(HERE, size)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "machine.json", machine() | environment() | {"config": config})
    table = pd.DataFrame([row for network in config["networks"] for row in rounds(network, config)])
    write_text(out / "rounds.csv", table.to_csv(index=False, float_format="%.5g"))
    found = summary(table, config["steps"])
    write_text(out / "summary.csv", found.to_csv(index=False, float_format="%.4g"))
    print(found.round(4).T.to_string(header=False))
    first = next(iter(config["networks"].values()))
    moved = pd.DataFrame(errors(digits_dit(first), config))
    write_text(out / "errors.csv", moved.to_csv(index=False, float_format="%.4g"))
    print(moved.round(4).to_string(index=False))


def main() -> None:
    """Parse and run."""
    command_line.run(__doc__, HERE, study)


if __name__ == "__main__":
    main()

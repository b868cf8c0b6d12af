"""How many steps does the trainer do, beside a bare loop of the same network? See README.md.

python -m analysis.throughput.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis import command_line
from analysis.fresh_network import fresh_network
from analysis.stopwatch import machine
from ntkdiag.cli.inputs.loading import LoadedModel
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.train import TrainConfig, train

HERE = Path(__file__).parent
# Least steps per second, in those of the bare loop.
GOAL = 0.95
# Blocks of steps before the first that counts: torch and the processor's caches settle.
WARM_UP = 2


def bare_loop(start: LoadedModel, config: TrainConfig) -> Callable[[int], list[float]]:
    """The loop that a person would write for a network of target v on the cosine schedule; called with a number of steps.

    It returns their losses, which it keeps on the device until the end, as a loop that logs does.
    """
    network = copy.deepcopy(start.denoiser.network).train()
    average = copy.deepcopy(network)
    samples = start.data.train.to(next(network.parameters()))
    betas = (config.beta1, config.beta2)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, betas=betas, weight_decay=config.weight_decay, fused=True
    )
    live, slow = list(network.parameters()), list(average.parameters())
    done = 0

    def run(steps: int) -> list[float]:
        nonlocal done
        losses = []
        for _ in range(steps):
            x0 = samples[torch.randint(len(samples), (config.batch,))]
            epsilon = torch.randn_like(x0)
            log_snr = -2 * torch.tan(math.pi / 2 * torch.rand(config.batch)).log()
            shape = (-1, *(1,) * (x0.ndim - 1))
            alpha = torch.sigmoid(log_snr).sqrt().view(shape)
            sigma = torch.sigmoid(-log_snr).sqrt().view(shape)
            prediction = network(alpha * x0 + sigma * epsilon, log_snr)
            loss = torch.nn.functional.mse_loss(prediction, alpha * epsilon - sigma * x0)
            optimizer.param_groups[0]["lr"] = config.rate(done)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(live, config.gradient_clip)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(slow, live, 1 - min(config.ema_decay, (1 + done) / (10 + done)))
            losses.append(loss.detach())
            done += 1
        return torch.stack(losses).tolist()

    return run


def clock() -> tuple[float, float]:
    """Wall-clock and processor seconds."""
    return time.perf_counter(), time.process_time()


def blocks(name: str, case: dict[str, Any], config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each block: seconds of as many steps by the trainer and, right after them, by the bare loop."""
    start = fresh_network(case["model"], case["options"], case["data"], "v")
    steps, count = case["steps"], config["blocks"] + WARM_UP
    settings = TrainConfig(steps=count * steps, batch=case["batch"], log_every=steps)
    bare = bare_loop(start, settings)
    rows: list[dict[str, Any]] = []
    begun = clock()

    def row_ends(step: int, *_: Any) -> None:
        nonlocal begun
        middle = clock()
        bare(steps)
        end = clock()
        times = {
            f"{way}_{kind}": b[i] - a[i]
            for way, a, b in (("trainer", begun, middle), ("bare", middle, end))
            for i, kind in enumerate(("wall", "processor"))
        }
        rows.append({"network": name, "block": len(rows) - WARM_UP, "steps": steps, **times})
        begun = clock()

    train(copy.deepcopy(start.denoiser), start.data, None, settings, progress=row_ends)
    return rows[WARM_UP:]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per network: seconds of a step, and steps per second in those of the bare loop.

    ratio_wall and ratio_processor are medians over blocks of bare seconds / trainer seconds, low and high their quartiles.
    """
    rows = []
    for network, part in table.groupby("network", sort=False):
        row: dict[str, Any] = {"network": network}
        for kind in ("wall", "processor"):
            ratio = part[f"bare_{kind}"] / part[f"trainer_{kind}"]
            low, middle, high = ratio.quantile([0.25, 0.5, 0.75])
            row |= {f"ratio_{kind}": middle, f"{kind}_low": low, f"{kind}_high": high}
        for way in ("trainer", "bare"):
            row[f"{way}_ms"] = 1000 * (part[f"{way}_processor"] / part["steps"]).median()
        rows.append(row | {"goal": GOAL, "met": row["ratio_processor"] >= GOAL})
    return pd.DataFrame(rows)


def study(size: str, out: Path) -> None:
    """Write blocks and summary to `out`."""
    config = command_line.settings(HERE, size)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "machine.json", machine() | environment() | {"config": config})
    rows: list[dict[str, Any]] = []
    for name, case in config["networks"].items():
        rows += blocks(name, case, config)
        print(summary(pd.DataFrame(rows)).tail(1).round(3).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    write_text(out / "blocks.csv", table.to_csv(index=False, float_format="%.5g"))
    write_text(out / "summary.csv", summary(table).to_csv(index=False, float_format="%.4g"))


def main() -> None:
    """Parse and run."""
    command_line.run(__doc__, HERE, study)


if __name__ == "__main__":
    main()

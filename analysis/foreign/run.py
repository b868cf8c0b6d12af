"""Are networks from elsewhere read rightly, and are wrong statements of them caught? See README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from analysis import command_line
from analysis.foreign.families import Family, families, wrong_settings
from analysis.foreign.networks import pictures
from analysis.foreign.shift import study as shifts
from ntkdiag.adapters import CheckDraws, check_load
from ntkdiag.errors import InputError
from ntkdiag.kernel import gram
from ntkdiag.provenance import write_text

HERE = Path(__file__).parent
# The kernel is compared at this log-SNR, on this many samples.
LEVEL, SAMPLES = 0.5, 4


def kernel_difference(family: Family) -> float:
    """Largest difference of the kernel from that of the hand-written call, over its largest entry; in float64."""
    read, by_hand = family.read().double(), family.by_hand().double()
    x = torch.randn(SAMPLES, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mine, theirs = (gram(one, x, LEVEL, probes=2, check=False).matrix for one in (read, by_hand))
    return float((mine - theirs).abs().max() / theirs.abs().max())


def row(name: str, family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """What the load check says of the right statement and of five wrong ones, and the difference of kernels."""
    reading = family.read().float().reading
    draws = CheckDraws.draw(pictures(), reading.schedule, seed=config["seed"])
    found = check_load(reading, draws)
    missed = []
    for setting, wrong in wrong_settings(reading).items():
        try:
            check_load(wrong, draws)
        except InputError as error:
            assert "looks like" in str(error), error
        else:
            missed.append(setting)
    return {
        "family": name,
        "lines": 1,
        "line": family.line,
        "fits": found.fits,
        "error": round(found.error, 3),
        "next": round(found.closest[1], 3),
        "caught": 5 - len(missed),
        "missed": "; ".join(missed),
        "kernel_difference": kernel_difference(family),
    }


def study(config: dict[str, Any]) -> pd.DataFrame:
    """A row a family."""
    chosen = families()
    names = config["families"] or list(chosen)
    return pd.DataFrame([row(name, chosen[name], config) for name in names])


def main() -> None:
    options = command_line.parser(__doc__, HERE).parse_args()
    config = command_line.settings(HERE, options.size)
    table, shifted = study(config), shifts(config["shift_seeds"])
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "foreign.csv", table.to_csv(index=False, float_format="%.3g"))
    write_text(options.out / "shift.csv", shifted.to_csv(index=False, float_format="%.3g"))
    print(table.drop(columns=["line"]).to_string(index=False))
    print(shifted.to_string(index=False))


if __name__ == "__main__":
    main()

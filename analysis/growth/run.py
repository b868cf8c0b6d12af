"""How does the time of a kernel grow with parameters P, samples N, tokens T and probes R? See README.md.

python -m analysis.growth.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from analysis import command_line
from analysis.stopwatch import exponent, interleaved, machine
from analysis.ways import Case, dit_case, streaming, torch_func, training_step
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
# Setting in config.json → the axis of the fit, which it changes.
AXIS = {
    "width": "P by width",
    "depth": "P by depth",
    "samples": "N",
    "side": "T",
    "probes": "R",
}
# Bytes; torch.func is left out where its per-sample gradients would take more.
MOST_GRADIENT_BYTES = 3 * 1024**3


def size_of(case: Case, setting: str, value: int, patch: int) -> int:
    """Position of a point on its axis."""
    if setting in ("width", "depth"):
        return case.parameters
    return (value // patch) ** 2 if setting == "side" else value


def ways_of(case: Case, setting: str) -> dict[str, Any]:
    """The computations timed at one point; torch.func takes a single probe, so it is not timed over R."""
    ways = {"kernel": streaming(case), "training step": training_step(case)}
    if setting != "probes" and 4 * case.samples * case.parameters <= MOST_GRADIENT_BYTES:
        ways["torch.func"] = torch_func(case, written_out_attention=True)
    return ways


def points(config: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per sweep, point and way: median and fastest seconds of interleaved rounds."""
    rows = []
    for setting, values in config["sweeps"].items():
        for value in values:
            options = config["base"] | {setting: value}
            case = dit_case(**options)
            labels = {
                "axis": AXIS[setting],
                "size": size_of(case, setting, value, options["patch"]),
                "P": case.parameters,
                "N": case.samples,
                "T": (options["side"] // options["patch"]) ** 2,
                "R": options["probes"],
            }
            for way, times in interleaved(ways_of(case, setting), config["rounds"]).items():
                rows.append(labels | {"way": way, "seconds": median(times), "fastest": min(times)})
                print(f"{labels['axis']:10} {labels['size']:>10}  {way:14} {median(times):.4f} s", flush=True)
    return rows


def exponents(points: pd.DataFrame) -> pd.DataFrame:
    """Two rows per axis and way: slope of ln(seconds) on ln(size) over all points, and over the three largest."""
    rows = []
    for (axis, way), group in points.groupby(["axis", "way"], sort=False):
        ordered = group.sort_values("size")
        for span, chosen in (("all", ordered), ("three largest", ordered.tail(3))):
            if len(chosen) < 2:
                continue
            slope, error = exponent(chosen["size"].to_numpy(), chosen.seconds.to_numpy())
            rows.append(
                {
                    "axis": axis,
                    "way": way,
                    "points": span,
                    "from": chosen["size"].iloc[0],
                    "to": chosen["size"].iloc[-1],
                    "exponent": slope,
                    "standard_error": error,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Parse and run."""
    chosen = command_line.parser(__doc__, HERE).parse_args()
    where = machine() | environment()
    config = command_line.settings(HERE, chosen.size)
    table = pd.DataFrame(points(config))
    fits = exponents(table)
    print(fits.round(3).to_string(index=False))
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out / "times.csv", table.to_csv(index=False, float_format="%.5g"))
    write_text(chosen.out / "exponents.csv", fits.to_csv(index=False, float_format="%.4g"))
    write_json(chosen.out / "machine.json", where)


if __name__ == "__main__":
    main()

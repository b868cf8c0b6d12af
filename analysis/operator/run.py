"""What do a product with the full kernel, and its top eigenpairs, cost? See README.md.

python -m analysis.operator.run [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

import ntkdiag as nd
from analysis import command_line
from analysis.stopwatch import interleaved, machine, spread
from analysis.ways import Way
from ntkdiag.process.paired_draws import PairedDraws
from ntkdiag.provenance import environment, write_json, write_text
from ntkdiag.spectra import top_eigenpairs

HERE = Path(__file__).parent
# Largest time of one product, relative to one vjp and one jvp.
LIMIT = 1.1


@dataclass(frozen=True)
class Case:
    """A network, noisy inputs [N, *shape] and their log-SNR."""

    denoiser: nd.Denoiser
    x: Tensor
    log_snr: float
    chunk: int

    def operator(self, chunk: int | None = None) -> nd.NTKOperator:
        """The full kernel of these inputs."""
        return nd.NTKOperator(self.denoiser, self.x, self.log_snr, chunk=chunk)


def case_of(config: dict[str, Any], network: str, seed: int = 0) -> Case:
    """An untrained DiT on digits, or on Gaussian numbers of a given shape."""
    chosen = config["networks"][network]
    if chosen["data"]:
        data = nd.data.load(chosen["data"]).train
    else:
        generator = torch.Generator().manual_seed(seed)
        data = torch.randn(chosen["samples"], *chosen["shape"], generator=generator)
    model = nd.models.build("dit", tuple(data.shape[1:]), seed=seed, **chosen["dit"])
    denoiser = nd.Denoiser(model, nd.schedules.cosine(), "v", call="log_snr")
    draws = PairedDraws.draw(data, chosen["samples"], seed)
    return Case(denoiser, draws.at(denoiser.schedule, config["log_snr"]), config["log_snr"], chosen["chunk"])


def ways_of(case: Case) -> dict[str, Way]:
    """The operator's product, whole and in chunks, and the vjp and jvp of torch.func that it consists of."""
    operator, chunked = case.operator(), case.operator(case.chunk)
    theta = {name: p.detach() for name, p in case.denoiser.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    u = {name: torch.randn(p.shape, generator=generator) for name, p in theta.items()}
    v = torch.randn(case.x.shape, generator=generator)

    def call(values: dict[str, Tensor], part: slice) -> Tensor:
        return functional_call(case.denoiser, values, (case.x[part], case.log_snr))

    def forward_mode(part: slice = slice(None)) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            return jvp(lambda values: call(values, part), (theta,), (u,))[1]

    def reverse_mode(part: slice = slice(None)) -> None:
        vjp(lambda values: call(values, part), theta)[1](v[part])

    def chunk_by_chunk() -> None:
        for start in range(0, len(case.x), case.chunk):
            part = slice(start, start + case.chunk)
            reverse_mode(part)
            forward_mode(part)

    return {
        "product": lambda: operator.apply(v.flatten()),
        "vjp": reverse_mode,
        "jvp": forward_mode,
        "product, in chunks": lambda: chunked.apply(v.flatten()),
        "vjp and jvp, in chunks": chunk_by_chunk,
    }


def timings(config: dict[str, Any]) -> pd.DataFrame:
    """One row per network and way; ratios are medians of the ratios within rounds."""
    rows = []
    for network in config["networks"]:
        case = case_of(config, network)
        times = interleaved(ways_of(case), config["rounds"])
        both = [a + b for a, b in zip(times["vjp"], times["jvp"], strict=True)]
        for way, values in times.items():
            row = {
                "network": network,
                "way": way,
                **spread(values),
                "over_vjp_and_jvp": median(a / b for a, b in zip(values, both, strict=True)),
            }
            rows.append(row)
            print(
                f"{network:14}  {way:20} {row['seconds']:8.4f} s  {row['over_vjp_and_jvp']:.2f}", flush=True
            )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Solved:
    """Eigenvalues, descending, unit eigenvectors [n, k], and the time and products that they took."""

    values: NDArray[np.float64]
    vectors: NDArray[Any]
    seconds: float
    products: int


def by_package(case: Case, pairs: int, tolerance: float, block: int) -> Solved:
    """The package's block Lanczos."""
    operator = case.operator()
    start = time.perf_counter()
    found = top_eigenpairs(
        operator.apply, operator.like, operator.shape[0], pairs, tolerance=tolerance, block=block
    )
    seconds = time.perf_counter() - start
    return Solved(found.values.numpy(), found.vectors.numpy(), seconds, found.products)


def by_scipy(case: Case, pairs: int, tolerance: float) -> Solved:
    """ARPACK's implicitly restarted Lanczos on the same operator."""
    operator, calls = case.operator(), 0

    def product(v: NDArray[Any]) -> NDArray[Any]:
        nonlocal calls
        calls += 1
        return operator.matvec(v)

    counted = LinearOperator(operator.shape, matvec=product, dtype=operator.dtype)
    first = np.random.default_rng(0).standard_normal(operator.shape[0]).astype(operator.dtype)
    start = time.perf_counter()
    values, vectors = eigsh(counted, k=pairs, tol=tolerance, v0=first)
    seconds = time.perf_counter() - start
    order = np.argsort(values)[::-1]
    return Solved(values[order].astype(float), vectors[:, order], seconds, calls)


def eigenpairs(config: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per network and solver; and every eigenvalue with its residual."""
    rows, spectra = [], []
    pairs, tolerance = config["pairs"], config["tolerance"]
    for network in config["networks"]:
        case = case_of(config, network)
        found = {"scipy's eigsh": by_scipy(case, pairs, tolerance)}
        for block in config["blocks"]:
            found[f"block Lanczos, {block}"] = by_package(case, pairs, tolerance, block)
        reference = found["scipy's eigsh"]
        operator = case.operator()
        for way, one in found.items():
            residuals = np.linalg.norm(operator @ one.vectors - one.vectors * one.values, axis=0)
            gap = np.abs(one.values - reference.values)
            row = {
                "network": network,
                "rows": operator.shape[0],
                "way": way,
                "pairs": pairs,
                "seconds": one.seconds,
                "products": one.products,
                "products_over_eigsh": one.products / reference.products,
                "largest_residual": (residuals / reference.values[0]).max(),
                "largest_difference": (gap / reference.values[0]).max(),
                "largest_relative_difference": (gap / reference.values).max(),
            }
            rows.append(row)
            index = np.arange(1, pairs + 1)
            values = {"index": index, "eigenvalue": one.values, "residual": residuals}
            spectra.append(pd.DataFrame({"network": network, "way": way, **values}))
            print(f"{network:14}  {way:20} {one.seconds:8.1f} s  {one.products} products", flush=True)
    return pd.DataFrame(rows), pd.concat(spectra, ignore_index=True)


def met(times: pd.DataFrame) -> pd.DataFrame:
    """One row per network: time of a product relative to one vjp and one jvp, and whether it is within the limit."""
    product = times[times.way == "product"]
    value = product.over_vjp_and_jvp
    return pd.DataFrame({"network": product.network, "ratio": value, "limit": LIMIT, "met": value <= LIMIT})


def study(size: str, out: Path) -> None:
    """Write times, ratios and eigenpairs to `out`, each as soon as it is measured."""
    config = command_line.settings(HERE, size)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "machine.json", machine() | environment())
    times = timings(config)
    write_text(out / "times.csv", times.to_csv(index=False, float_format="%.5g"))
    write_text(out / "ratios.csv", met(times).to_csv(index=False, float_format="%.4g"))
    table, spectra = eigenpairs(config)
    write_text(out / "eigenpairs.csv", table.to_csv(index=False, float_format="%.4g"))
    write_text(out / "eigenvalues.csv", spectra.to_csv(index=False, float_format="%.7g"))
    print(table.to_string(index=False))


def main() -> None:
    """Parse and run."""
    chosen = command_line.parser(__doc__, HERE).parse_args()
    study(chosen.size, chosen.out)


if __name__ == "__main__":
    main()

"""What does a kernel cost on a CUDA card, and what does lower precision cost in accuracy? See README.md.

python -m analysis.accelerator.run [--device cuda] [--size full|tiny] [--out FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import ntkdiag as nd
from analysis import command_line
from analysis.stopwatch import machine, peak_mib, relative_error
from analysis.ways import Case, dit_case, float64_truth, streaming, torch_func, training_step
from ntkdiag.provenance import environment, write_json, write_text

HERE = Path(__file__).parent
# name → (dtype of weights and inputs, TF32 in matrix products)
PRECISIONS: dict[str, tuple[torch.dtype, bool]] = {
    "float32": (torch.float32, False),
    "TF32": (torch.float32, True),
    "bfloat16": (torch.bfloat16, False),
}


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions inside the block."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    kept = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = kept


class Meter:
    """Measures seconds and peak memory on one device; waits for the card before it reads the clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seconds(self, call: Callable[[], Any]) -> float:
        """Wall-clock seconds of one call."""
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def peak_mib(self, call: Callable[[], Any]) -> float:
        """Peak memory in MiB: on a card that allocated during the call, on the CPU that of the process so far."""
        if self.device.type != "cuda":
            call()
            return peak_mib()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        return torch.cuda.max_memory_allocated(self.device) / 1024**2

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def matrix_rate(meter: Meter, side: int, dtype: torch.dtype) -> float:
    """Operations per second of a square matrix product, the fastest of ten."""
    left = torch.randn(side, side, device=meter.device).to(dtype)
    fastest = min(meter.seconds(lambda: left @ left) for _ in range(10))
    return 2 * side**3 / fastest


def precision_table(config: dict[str, Any], meter: Meter) -> list[dict[str, Any]]:
    """One row per network, precision and way: seconds, peak memory, error relative to float64 of the same weights."""
    rows = []
    for network, chosen in config["networks"].items():
        build = {**config["sizes"], **chosen, "device": meter.device}
        truth = float64_truth(dit_case(**build)).cpu().numpy()
        for precision, (dtype, allowed) in PRECISIONS.items():
            with tf32(allowed):
                case = dit_case(**build).to(dtype)
                for way, call in ways_of(case).items():
                    rows.append({"network": network, "precision": precision, "way": way})
                    rows[-1] |= measured(call, config["rounds"], meter, truth)
                    print(rows[-1], flush=True)
    return rows


def ways_of(case: Case) -> dict[str, Callable[[], Tensor | None]]:
    """The computations that are compared."""
    kernel = streaming(case)

    def first() -> Tensor | None:
        grams = kernel()
        return None if grams is None else grams[0]

    return {
        "training step": training_step(case),
        "kernel": first,
        "torch.func": torch_func(case, written_out_attention=True),
    }


def measured(
    call: Callable[[], Tensor | None], rounds: int, meter: Meter, truth: Any
) -> dict[str, float | None]:
    """Cold and warm seconds, peak memory and, for kernels, the relative error."""
    cold = meter.seconds(call)
    warm = median(meter.seconds(call) for _ in range(rounds))
    found = call()
    error = None if found is None else relative_error(found.detach().double().cpu().numpy(), truth)
    return {
        "cold_seconds": cold,
        "warm_seconds": warm,
        "peak_mib": meter.peak_mib(call),
        "relative_error": error,
    }


def cross_bucket(config: dict[str, Any], meter: Meter) -> list[dict[str, Any]]:
    """One kernel over all samples of all buckets of a large network; one row per precision."""
    options = dict(config["cross_bucket"])
    buckets, samples = options.pop("buckets"), options.pop("samples")
    levels = torch.tensor(nd.Buckets.uniform(-10, 10, buckets).centers).repeat_interleave(samples)
    rows = []
    for precision, (dtype, allowed) in PRECISIONS.items():
        case = dit_case(samples=samples, device=meter.device, **options).to(dtype)
        denoiser = nd.Denoiser(case.module, schedule=nd.schedules.cosine(), target="v", call="log_snr")
        x0, noise = (draw(case, seed).repeat(buckets, 1, 1, 1) for seed in (0, 1))

        def kernel(denoiser: nd.Denoiser = denoiser, x0: Tensor = x0, noise: Tensor = noise) -> nd.Gram:
            return nd.gram(denoiser, x0, levels, probes=1, epsilon=noise, engine="streaming")

        with tf32(allowed):
            rate = matrix_rate(meter, config["matrix"], dtype)
            peak = meter.peak_mib(kernel)
            taken = meter.seconds(kernel)
        count = operations(case, len(levels))
        rows.append(
            {
                "precision": precision,
                "parameters": case.parameters,
                "samples": len(levels),
                "seconds": taken,
                "peak_mib": peak,
                "operations": count,
                "matrix_rate": rate,
                "share_of_matrix_rate": count / taken / rate,
            }
        )
        print(rows[-1], flush=True)
        del case, denoiser, x0, noise, kernel
    return rows


def draw(case: Case, seed: int) -> Tensor:
    """Standard normal, shaped and typed as the network's first input."""
    values = torch.randn(case.inputs[0].shape, generator=torch.Generator().manual_seed(seed))
    return values.to(case.inputs[0])


def operations(case: Case, samples: int) -> float:
    """Useful operations of one kernel: a training step's, by torch's counter, and 2N²P for the products.

    What the engine computes twice, tile by tile, is not counted.
    """
    one = Case(case.module, tuple(tensor[:1] for tensor in case.inputs), case.probes)
    with FlopCounterMode(display=False) as counter:
        training_step(one)()
    one.module.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) * samples + 2.0 * samples**2 * case.parameters


def main() -> None:
    """Parse and run."""
    parser = command_line.parser(__doc__, HERE)
    parser.add_argument("--device", default="cuda", help="a torch device, such as cuda:1 or cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA card is visible; --device cpu --size tiny tries the script without one")
    config, meter = command_line.settings(HERE, chosen.size), Meter(device)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "machine.json", machine() | environment(device))
    for name, study in (("precision", precision_table), ("cross_bucket", cross_bucket)):
        table = pd.DataFrame(study(config, meter))
        print(table.to_string(index=False))
        write_text(chosen.out / f"{name}.csv", table.to_csv(index=False, float_format="%.5g"))


if __name__ == "__main__":
    main()

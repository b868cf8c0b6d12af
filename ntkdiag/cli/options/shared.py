"""Options that more than one command has, with their help texts.

Nothing is checked here beyond its type: names are checked by the room that knows them, which also
suggests the closest spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, nothing else there.")
]
Force: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what an earlier run left at --out.")]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Of everything random; same seed, same numbers.")
]
Folder: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="DIAGNOSIS", help="A folder written by 'ntkdiag measure --out' or by the demo."),
]
Tables: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="[NAME=]FILE", help="A weight table to draw; may be repeated."),
]
Runs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--run", metavar="[NAME=]FOLDER", help="A folder written by 'ntkdiag train'; may be repeated."
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which network, and on what process and data; None where the user said nothing."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A reference network (mlp, dit); a function of yours, called as function() or function(shape), that "
            "returns a torch.nn.Module or a ntkdiag.Denoiser; or a folder written by 'ntkdiag train'.",
        ),
    ] = None
    model_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Argument of the network, such as width=64; may be repeated."
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights to load, .safetensors."),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="digits, mixture, or a .npy file of [N, ...]. (default: digits)"),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cosine, linear_beta, linear_log_snr, flow, edm, from_table. (default: cosine)",
        ),
    ] = None
    schedule_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Argument of the schedule, such as steps=1000; may be repeated."
        ),
    ] = None
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What the network predicts: epsilon, x0, v, score, flow, F. (default: v)"
        ),
    ] = None
    call: Annotated[
        str | None,
        typer.Option(
            metavar="HOW",
            help="What the network gets beside x: time or log_snr. (default: log_snr for reference networks, else time)",
        ),
    ] = None
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps.")] = "cpu"
    seed: Seed = 0


@dataclass(frozen=True)
class MeasureOptions:
    """How a network is measured."""

    buckets: Annotated[
        str,
        typer.Option(
            metavar="BUCKETS",
            help="Log-SNR buckets: that many of equal width, given edges such as -10,-5,0,5, or that many that "
            "training visits equally often.",
        ),
    ] = "10"
    range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Log-SNR that COUNT buckets span. (default: -10,10)"),
    ] = None
    samples: Annotated[int, typer.Option(metavar="N", help="Samples a bucket.")] = 64
    probes: Annotated[
        int,
        typer.Option(metavar="R", help="Random probes of the trace kernel."),
    ] = 8
    params: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Only parameters of such names, as in 'blocks.*'; may be repeated."
        ),
    ] = None
    engine: Annotated[str, typer.Option(metavar="NAME", help="How kernels are computed.")] = "auto"
    memory: Annotated[
        str | None,
        typer.Option(metavar="BYTES", help="For per-sample gradients, such as 500M or 2G."),
    ] = None
    control: Annotated[
        bool,
        typer.Option(help="Measure an untrained network of the same kind too, on the same draws."),
    ] = True


@dataclass(frozen=True)
class FullOptions:
    """Whether the full kernel is measured too, and what is spent on it; None where the user said nothing."""

    kernel: Annotated[
        str,
        typer.Option(
            metavar="trace|full",
            help="trace: the kernel summed over outputs. full: that, and the kernel of every single output, never "
            "formed; minutes on images, twice that with --control.",
        ),
    ] = "trace"
    top_k: Annotated[
        int | None,
        typer.Option(metavar="K", help="Eigenfunctions of the full kernel a bucket. (default: 16)"),
    ] = None
    slq: Annotated[
        int | None,
        typer.Option(
            metavar="VECTORS",
            help="Random vectors for the full kernel's spectral density and effective rank (stochastic Lanczos "
            "quadrature); 0 leaves both out. (default: 6)",
        ),
    ] = None

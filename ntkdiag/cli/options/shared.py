"""Options that more than one command has, with their help texts.

Names are not checked here but in the room that owns them, which also suggests the closest spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

import typer

from ntkdiag.cli.options.choices import (
    CALLS,
    DATASETS,
    ENGINES,
    MODELS,
    SCHEDULES,
    TARGETS,
    TIMESTEPS,
    one_of,
)

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Force: TypeAlias = Annotated[
    bool, typer.Option("--force", help="Replace the results of an earlier run at --out.")
]
ForceFile: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace an existing file at --out.")]
Seed: TypeAlias = Annotated[
    int,
    typer.Option(
        "--seed", min=0, metavar="N", help="Seed of everything random: equal seeds give equal numbers."
    ),
]
Folder: TypeAlias = Annotated[
    Path,
    typer.Argument(metavar="DIAGNOSIS", help="A folder written by 'ntkdiag measure --out' or by the demo."),
]
Tables: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--table", metavar="[NAME=]FILE", help="A weight table to draw. May be repeated."),
]
Runs: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--run",
        metavar="[NAME=]FOLDER",
        help="A training run to draw: a folder written by 'ntkdiag train'. May be repeated.",
    ),
]
Target: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What the network predicts. " + one_of(TARGETS)),
]
ScheduleOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="An argument of the schedule, such as steps=1000. May be repeated."
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """Which network, and on what process and data; None where the user said nothing."""

    TITLE: ClassVar[str] = "Network and data"

    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FUNCTION|FOLDER",
            help=f"The network: a reference network ({', '.join(MODELS)}); a function of yours, "
            "package.module:function or file.py:function, called as function() or function(shape), that returns a "
            "torch.nn.Module or an ntkdiag.Denoiser; a folder written by 'ntkdiag train'; or a folder of diffusers' "
            "save_pretrained (a pipeline, or a model beside its scheduler), or the name of one in the local cache.",
        ),
    ] = None
    model_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An argument of the network, such as width=64. May be repeated."
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The weights to load into the network: .safetensors, the .index.json of a sharded one, .pt, .pth or "
            ".ckpt, or a folder with one of these. Nothing in it is run. A moving average (EMA) is preferred.",
        ),
    ] = None
    weights_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="Which weights of the checkpoint to load, where there are several, such as ema or state_dict.model.",
        ),
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|FOLDER",
            show_default="digits",
            help=f"The data: {', '.join(DATASETS)}; samples [N, ...] as .npy, .npz, .safetensors or .pt; an idx file, or a "
            "folder of them as MNIST comes; or a folder of pictures, with a class for each subfolder. Floating-point values "
            "are used as they are, pixels are scaled to [-1, 1]. For measure and verify also self: samples that a "
            "network in a folder draws itself, under --labels and --cond where given, which weakens the answer.",
        ),
    ] = None
    data_key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The array of samples in a file of several arrays."),
    ] = None
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="A class label for each sample, whole numbers [N] in the order of --data, for networks that take labels.",
        ),
    ] = None
    cond: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.npy",
            help="A condition of the network, with a row for each sample in the order of --data. A function's network is "
            "passed it as the argument NAME. May be repeated.",
        ),
    ] = None
    latents: Annotated[
        bool,
        typer.Option(
            "--latents",
            help="The data of a pipeline with a VAE are latents already, scaled as the network takes them. Without it they "
            "are pictures, and the VAE of the folder encodes them.",
        ),
    ] = False
    image_size: Annotated[
        str | None,
        typer.Option(
            metavar="SIDE|HEIGHT,WIDTH",
            help="Resize pictures: they are scaled until they cover this size, and the middle is cut out.",
        ),
    ] = None
    pixel_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            show_default="-1,1",
            help="What the lowest and the highest value of a pixel become.",
        ),
    ] = None
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="cosine",
            help=f"The noise schedule. {one_of(SCHEDULES)} A function's network without an attribute schedule needs it.",
        ),
    ] = None
    schedule_option: ScheduleOption = None
    target: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="v",
            help=f"What the network predicts. {one_of(TARGETS)} A function's network without an attribute target needs it.",
        ),
    ] = None
    scheduler: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="The scheduler of a folder of save_pretrained, where it is not beside the model: a folder or its "
            "scheduler_config.json. It says the schedule, the target and the unit of time.",
        ),
    ] = None
    timesteps: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="continuous",
            help="Whether the network is called with times between the steps. "
            + one_of(TIMESTEPS)
            + " Tables of "
            "embeddings need integers.",
        ),
    ] = None
    load_check: Annotated[
        bool,
        typer.Option(
            help="Refuse a folder's network that fits another target, sign or unit of time clearly better than what its "
            "scheduler says.",
        ),
    ] = True
    call: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            show_default="log_snr for reference networks, time for others",
            help="What the network is called with beside x. " + one_of(CALLS),
        ),
    ] = None
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="The torch device, such as cpu, cuda, cuda:1 or mps.")
    ] = "cpu"
    seed: Seed = 0


_SIZED = "{}, or what --level says"


@dataclass(frozen=True)
class MeasureOptions:
    """How a network is measured."""

    TITLE: ClassVar[str] = "Measurement"

    buckets: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT|EDGES|density:COUNT",
            show_default="10; of 'verify', as --level says",
            help="The log-SNR buckets. COUNT, such as 10, makes buckets of equal width over --range; EDGES, such as "
            "-10,-5,0,5, are the ends of the buckets; density:COUNT, such as density:10, makes buckets in which "
            "training draws equally often.",
        ),
    ] = None
    range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            show_default="where the schedule trains, but for the outermost 0.1% on either side",
            help="The log-SNR range that COUNT buckets divide.",
        ),
    ] = None
    extrapolate: Annotated[
        bool,
        typer.Option(
            "--extrapolate",
            help="Also measure buckets at noise levels outside the schedule's support, which the network never saw in "
            "training. The summary and the page mark them, and the answer leaves them out.",
        ),
    ] = False
    null_label: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Measure all samples under this label, such as the one that stands for no class, instead of their own.",
        ),
    ] = None
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", show_default=_SIZED.format(64), help="Number of samples in each bucket."),
    ] = None
    probes: Annotated[
        int | None,
        typer.Option(
            metavar="N", show_default=_SIZED.format(8), help="Number of random probes of the trace kernel."
        ),
    ] = None
    params: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Measure only the parameters whose names match the pattern, such as 'blocks.*'. May be repeated.",
        ),
    ] = None
    engine: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How kernels are computed; sketch, by short random projections of the gradients, is for thousands of "
            "samples. " + one_of(ENGINES),
        ),
    ] = "auto"
    sketch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            show_default="64",
            help="Size of the sketch of a layer, N by N numbers a sample. Its error falls with the root of N.",
        ),
    ] = None
    check: Annotated[
        bool,
        typer.Option(help="Compare the engine with plain autograd on two samples, for every parameter."),
    ] = True
    memory: Annotated[
        str | None,
        typer.Option(metavar="BYTES", help="Memory for per-sample gradients, such as 500M or 2G."),
    ] = None
    held_out_unseen: Annotated[
        bool,
        typer.Option(
            "--held-out-unseen",
            help="State that the network was not trained on the part of the data that is held out, so that its loss there "
            "bounds the loss that no training removes. This is known of the networks of 'ntkdiag train' that began from "
            "fresh weights.",
        ),
    ] = False
    controls: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            show_default=_SIZED.format(5),
            help="Number of untrained networks of the same kind to measure on the same draws, each at the cost of the "
            "network itself. Their spread says what training did.",
        ),
    ] = None

"""How the models of diffusers are called: x, time and conditions by the names of their own arguments.

A condition is passed under its name. Those that some models take inside `added_cond_kwargs` are put there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntkdiag.adapters.diffusers.packing import packed_call
from ntkdiag.adapters.reading import Invoke, first_channels
from ntkdiag.conditions import LABEL, missing_remedy
from ntkdiag.errors import InputError, listed

_INPUTS = ("sample", "hidden_states", "x")
_TIMES = ("timestep", "t")
_NESTED = "added_cond_kwargs"
# Conditions that models take inside added_cond_kwargs (Stable Diffusion XL; PixArt).
_INNER = ("text_embeds", "time_ids", "image_embeds", "resolution", "aspect_ratio")
# Models whose pipelines divide the scheduler's 1000 t by 1000.
_UNIT_TIME = (
    "AuraFlowTransformer2DModel", "ChromaTransformer2DModel", "FluxTransformer2DModel", "Flux2Transformer2DModel",
    "QwenImageTransformer2DModel",
)  # fmt: skip
# Models that are called with 1 − t and predict x0 − ε.
_FLIPPED = ("LuminaNextDiT2DModel", "Lumina2Transformer2DModel")
# Conditions without which a model fails, though its signature has a default for them.
_NEEDED = {
    "PixArtTransformer2DModel": ("encoder_hidden_states",),
    "SD3Transformer2DModel": ("encoder_hidden_states", "pooled_projections"),
    "FluxTransformer2DModel": ("encoder_hidden_states", "pooled_projections"),
    "Flux2Transformer2DModel": ("encoder_hidden_states",),
    "AuraFlowTransformer2DModel": ("encoder_hidden_states",),
}
# The guidance that distilled networks are called with where none is given.
_GUIDANCE = 3.5


@dataclass(frozen=True)
class Invocation:
    """How one model is called.

    Attributes:
        invoke: Calls it.
        arguments: Name of a condition of the data → argument.
        null: Name of a condition → the value that stands for none.
        defaults: Conditions where none are given.
        time_unit: Factor of the scheduler's time.
        flipped: Whether it is called with the time from noise and predicts the negative.
    """

    invoke: Invoke
    arguments: Mapping[str, str]
    null: Mapping[str, Any]
    defaults: Callable[[Tensor], Mapping[str, Any]]
    time_unit: float = 1.0
    flipped: bool = False


def invocation(model: nn.Module, guidance: float | None) -> Invocation:
    """How a model is called, by its class and the names of its arguments.

    Args:
        model: A model of diffusers, or any module with arguments of these names.
        guidance: Scale that a guidance-distilled network is called with; None for 3.5 if it is one.

    Raises:
        InputError: it has no argument for x or time, or a guidance for a network that takes none.
    """
    kind = type(model).__name__
    parameters = inspect.signature(model.forward).parameters
    x_name = next((name for name in _INPUTS if name in parameters), None)
    time_name = next((name for name in _TIMES if name in parameters), None)
    if x_name is None or time_name is None:
        raise InputError(
            "model",
            expected="a model of diffusers with an argument sample or hidden_states, and timestep",
            got=f"{kind} with {listed(parameters)}",
            fix="Give Denoiser a call=function(network, x, log_snr, cond) for any other network.",
        )
    names = [name for name in parameters if name not in (x_name, time_name)]
    required = [
        name for name in names
        if parameters[name].default is inspect.Parameter.empty
        and parameters[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]  # fmt: skip
    null = _null_label(model)
    needed = tuple(dict.fromkeys([*required, *_NEEDED.get(kind, ()), *_class_labels(model)]))

    def invoke(network: nn.Module, x: Tensor, time: Tensor, cond: Mapping[str, Any]) -> Tensor:
        arguments = _arguments(cond, names, needed, kind)
        packed = packed_call(network, x_name, time_name)
        if packed is not None:
            return packed(x, time, arguments)
        return first_channels(network(**{x_name: x, time_name: time}, **arguments), x)

    return Invocation(
        invoke,
        arguments=_conditions(model, names, needed),
        null={} if null is None else {"label": null},
        defaults=_defaults(model, names, guidance, null),
        time_unit=1e-3 if kind in _UNIT_TIME else 1.0,
        flipped=kind in _FLIPPED,
    )


def _arguments(
    cond: Mapping[str, Any], names: list[str], needed: tuple[str, ...], kind: str
) -> dict[str, Any]:
    """Conditions as the model's keyword arguments.

    Raises:
        InputError: one that it needs is missing, or one that it does not take was given.
    """
    inner = {name: value for name, value in cond.items() if name in _INNER and _NESTED in names}
    outer = {name: value for name, value in cond.items() if name not in inner}
    missing = [name for name in needed if name not in outer]
    unknown = [name for name in outer if name not in names]
    if missing or unknown:
        got = f"none of the name {listed(missing)}" if missing else f"{listed(unknown)}"
        fix, argument = (
            missing_remedy(LABEL if missing[0] == "class_labels" else missing[0]) if missing else (None, None)
        )
        raise InputError(
            f"cond of {kind}",
            expected=f"conditions by the names of its arguments, {listed(needed or names)}",
            got=got,
            fix=fix,
            arguments=None if argument is None else {argument: None},
        )
    nested = {_NESTED: {**outer.pop(_NESTED, {}), **inner}} if inner or _NESTED in outer else {}
    return {**outer, **nested}


def _class_labels(model: nn.Module) -> tuple[str, ...]:
    """The labels of a U-Net with a class embedding, which has no label for no class."""
    return ("class_labels",) if getattr(model, "class_embedding", None) is not None else ()


def _null_label(model: nn.Module) -> int | None:
    """The label of a DiT that stands for no class: the one after the last."""
    if not type(model).__name__.startswith(("DiT", "Transformer2D")):
        return None
    count = getattr(model, "config", {}).get("num_embeds_ada_norm")
    return None if count is None else int(count)


def _conditions(model: nn.Module, names: list[str], needed: tuple[str, ...]) -> dict[str, str]:
    """Name of a condition → argument: "label" for class labels, the model's own names for what else it needs.

    The models of diffusers have an argument for labels also where their config gives them no classes.
    """
    optional = "class_labels" in names and not needed and not hasattr(model, "config")
    takes_labels = "class_labels" in needed or _null_label(model) is not None or optional
    labels = {"label": "class_labels"} if takes_labels else {}
    return labels | {name: name for name in needed if name != "class_labels"}


def _defaults(
    model: nn.Module, names: list[str], guidance: float | None, null: int | None
) -> Callable[[Tensor], Mapping[str, Any]]:
    """Conditions for samples without any: the null label of a DiT, no sizes for PixArt, the scale of a distilled network."""
    config = getattr(model, "config", {})
    kind = type(model).__name__
    distilled = "guidance" in names and bool(config.get("guidance_embeds", kind.startswith("HunyuanVideo")))
    if guidance is not None and not distilled:
        raise InputError("guidance", expected=f"nothing, since {kind} takes no guidance", got=f"{guidance:g}")

    def defaults(x: Tensor) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        if null is not None:
            found["class_labels"] = torch.full((len(x),), null, device=x.device)
        if kind.startswith("PixArt"):
            found[_NESTED] = {"resolution": None, "aspect_ratio": None}
        if distilled:
            scale = _GUIDANCE if guidance is None else guidance
            found["guidance"] = torch.full((len(x),), scale, device=x.device, dtype=torch.float32)
        return found

    return defaults

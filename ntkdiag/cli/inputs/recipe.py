"""Recipe: everything it takes to build a network again from nothing, as plain values a run folder can keep."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.options.choices import MODELS
from ntkdiag.cli.options.parsing import checked, failure
from ntkdiag.errors import InputError, require_one_of

if TYPE_CHECKING:
    from torch import nn

    from ntkdiag.denoiser import Denoiser


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is made.

    Attributes:
        model: A reference name, or "module:function".
        model_options: Arguments of the network's class or of the function.
        schedule, schedule_options: The process; None where the function returns a whole `Denoiser`.
        target: What is predicted; None likewise.
        call: "time", "log_snr", or None for what fits the model.
        data: Name, or the absolute path of a .npy file.
        seed: Of the initial weights.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    schedule: str | None = None
    schedule_options: dict[str, Any] = field(default_factory=dict)
    target: str | None = None
    call: str | None = None
    data: str = "digits"
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any], where: str) -> Recipe:
        """What `to_dict` gave.

        Raises:
            InputError: something else, as in a run that was not started by `ntkdiag train`.
        """
        names = {one.name for one in fields(cls)}
        if not isinstance(stored, dict) or "model" not in stored or not set(stored) <= names:
            raise InputError(
                where,
                expected="a run of 'ntkdiag train', which says how its network is built",
                got="one without that note",
                fix="Give --model MODULE:FUNCTION and --checkpoint FOLDER/average.safetensors.",
            )
        return cls(**stored)

    def build(self, shape: tuple[int, ...], seed: int | None = None) -> Denoiser:
        """The denoiser with initial weights.

        Args:
            shape: Of one sample.
            seed: Of the initial weights, in place of the recipe's own.

        Raises:
            InputError: a name that is unknown, a function that cannot be found or that fails, or options
                that do not fit.
        """
        from ntkdiag.denoiser import Denoiser
        from ntkdiag.models import build
        from ntkdiag.process import schedules

        chosen = self.seed if seed is None else seed
        if self.model in MODELS:
            network = checked(
                "--model-option", lambda: build(self.model, shape, chosen, **self.model_options)
            )
            call = self.call or "log_snr"
        else:
            network = from_function(self.model, shape, chosen, self.model_options)
            call = self.call or "time"
        if isinstance(network, Denoiser):
            self._refuse_beside_denoiser()
            return network
        schedule = checked(
            "--schedule-option",
            lambda: schedules.named(self.schedule or "cosine", **self.schedule_options),
        )
        return Denoiser(network, schedule, self.target or "v", call=call)

    def _refuse_beside_denoiser(self) -> None:
        for name in ("schedule", "schedule_options", "target", "call"):
            if getattr(self, name):
                raise InputError(
                    "--" + name.replace("_", "-").removesuffix("s"),
                    expected="nothing, since the function returns a Denoiser that has its own",
                    got=repr(getattr(self, name)),
                )


def require_model(text: str | None) -> str:
    """Return the model as named, if it can be one at all.

    Raises:
        InputError: nothing, or neither a reference name nor module:function.
    """
    kinds = f"{', '.join(MODELS)}, package.module:function, or a folder written by 'ntkdiag train'"
    if text is None:
        raise InputError("--model", expected=kinds, got="nothing")
    if text in MODELS:
        return text
    module, colon, function = text.partition(":")
    if colon and module and function:
        return text
    import difflib

    close = difflib.get_close_matches(text, MODELS, n=1)
    raise InputError(
        "--model", expected=kinds, got=repr(text), fix=f"Did you mean '{close[0]}'?" if close else None
    )


def from_function(spec: str, shape: tuple[int, ...], seed: int, options: dict[str, Any]) -> nn.Module:
    """Call a user's function for a network.

    Args:
        spec: "package.module:function"; modules in the current folder are found.
        shape: Of one sample; handed over if the function wants an argument.
        seed: Set in torch's own generator for the call, which is put back afterwards.
        options: Keyword arguments.

    Raises:
        InputError: module or function that cannot be found, or a function that fails or returns no module.
    """
    import torch
    from torch import nn

    function = find_function(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            network = function(shape, **options) if _wants_shape(function, options) else function(**options)
        except Exception as error:
            raise failure(spec, "a function that returns a torch.nn.Module", error) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            spec, expected="a function that returns a torch.nn.Module", got=type(network).__name__
        )
    return network


def find_function(spec: str) -> Callable[..., Any]:
    """The function of "module:function"; modules in the current folder are found.

    Raises:
        InputError: there is none.
    """
    name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise failure(spec, f"a module '{name}' that can be imported from here", error) from error
    found = getattr(module, attribute, None)
    if found is None:
        own = [key for key, item in vars(module).items() if _is_own(item, module.__name__)]
        require_one_of(f"function in {name}", attribute, own)
    if not callable(found):
        raise InputError(spec, expected="a function", got=type(found).__name__)
    return found


def _is_own(item: object, module: str) -> bool:
    return callable(item) and getattr(item, "__module__", None) == module


def _wants_shape(function: Callable[..., Any], options: dict[str, Any]) -> bool:
    """Whether, beside the options, it has a parameter named shape or another one that cannot be left out."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in: nothing can be known, so it is called as function()
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        one.kind in positional
        and one.name not in options
        and (one.name == "shape" or one.default is inspect.Parameter.empty)
        for one in parameters
    )

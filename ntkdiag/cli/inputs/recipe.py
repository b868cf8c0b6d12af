"""Recipe: how to build a network from nothing, as plain values that a run folder stores."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntkdiag.cli.options.choices import MODELS
from ntkdiag.cli.options.parsing import checked
from ntkdiag.errors import InputError, did_you_mean, first_line, require_one_of

if TYPE_CHECKING:
    from torch import nn

    from ntkdiag.denoiser import Denoiser


@dataclass(frozen=True)
class Recipe:
    """How a denoiser is made.

    Attributes:
        model: The name of a reference network, or "module:function".
        model_options: Arguments of the network's class or of the function.
        schedule, schedule_options: The noise schedule and its arguments; None for cosine, or for the schedule of the
            `Denoiser` that the function returns.
        target: What the network predicts; None for v, or for the target of that `Denoiser`.
        call: "time" or "log_snr"; None for log_snr with a reference network, and for time with a function.
        data: The name of a data set, or the absolute path of a .npy file.
        seed: Seed of the initial weights.
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
        """The recipe as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any], where: str) -> Recipe:
        """The recipe that `to_dict` returned.

        Raises:
            InputError: `stored` is something else, as in a run that was not started by `ntkdiag train`.
        """
        names = {one.name for one in fields(cls)}
        if not isinstance(stored, dict) or "model" not in stored or not set(stored) <= names:
            raise InputError(
                where,
                expected="a run of 'ntkdiag train', which stores how its network is built",
                got="a run without that note",
                fix="Give --model MODULE:FUNCTION and --checkpoint FOLDER/average.safetensors.",
            )
        return cls(**stored)

    def build(self, shape: tuple[int, ...], seed: int | None = None) -> Denoiser:
        """The denoiser with initial weights.

        Args:
            shape: Shape of one sample.
            seed: Seed of the initial weights, if not the recipe's own.

        Raises:
            InputError: an unknown name, a function that does not exist or that fails, or options that do not fit.
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
    """Return the model as named, if it has the form of one.

    Raises:
        InputError: it is None, or neither a reference network nor module:function.
    """
    kinds = f"{', '.join(MODELS)}, package.module:function, or a folder written by 'ntkdiag train'"
    if text is None:
        raise InputError("--model", expected=kinds, got="nothing")
    if text in MODELS:
        return text
    module, colon, function = text.partition(":")
    if colon and module and function:
        return text
    raise InputError("--model", expected=kinds, got=repr(text), fix=did_you_mean(text, MODELS))


def from_function(spec: str, shape: tuple[int, ...], seed: int, options: dict[str, Any]) -> nn.Module:
    """The network that a user's function returns.

    Args:
        spec: "package.module:function"; modules in the current folder are found.
        shape: Shape of one sample; passed if the function takes it as an argument.
        seed: Seed of torch's global generator during the call; its state is restored afterwards.
        options: Keyword arguments of the function.

    Raises:
        InputError: a module or function that does not exist, or a function that fails or returns no network.
    """
    import torch
    from torch import nn

    function = find_function(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            network = function(shape, **options) if _wants_shape(function, options) else function(**options)
        except Exception as error:
            raise InputError(
                spec, expected="a function that returns a torch.nn.Module", got=first_line(error)
            ) from error
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
        raise InputError(
            spec, expected=f"a module '{name}' that can be imported from here", got=first_line(error)
        ) from error
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
    """Whether the function has a parameter named shape, or a required one that is not among the options."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a built-in without a signature is called as function()
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        one.kind in positional
        and one.name not in options
        and (one.name == "shape" or one.default is inspect.Parameter.empty)
        for one in parameters
    )

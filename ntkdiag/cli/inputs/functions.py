"""Functions of the user's, named as package.module:function or file.py:function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ntkdiag.errors import InputError, first_line, require_one_of

if TYPE_CHECKING:
    from torch import nn


def from_function(spec: str, shape: tuple[int, ...], seed: int, options: dict[str, Any]) -> nn.Module:
    """The network that a user's function returns.

    Args:
        spec: As in `find_function`.
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
    """The function of a user.

    Args:
        spec: "package.module:function", of which modules in the current folder are found, or "file.py:function".

    Raises:
        InputError: there is none, or its module or file cannot be imported.
    """
    name, _, attribute = spec.rpartition(":")
    try:
        module = _module_of_file(Path(name)) if _is_path(name) else _module(name)
    except (Exception, SystemExit) as error:
        kind = "file" if _is_path(name) else "module"
        raise InputError(
            spec, expected=f"a {kind} '{name}' that can be imported from here", got=first_line(error)
        ) from error
    found = getattr(module, attribute, None)
    if found is None:
        own = [key for key, item in vars(module).items() if _is_own(item, module.__name__)]
        require_one_of(f"function in {name}", attribute, own)
    if not callable(found):
        raise InputError(spec, expected="a function", got=type(found).__name__)
    return found


def with_absolute_path(spec: str) -> str:
    """ "file.py:function" with the absolute path of the file; a function of a module as it is."""
    name, _, attribute = spec.rpartition(":")
    return f"{Path(name).resolve()}:{attribute}" if _is_path(name) else spec


def _is_path(name: str) -> bool:
    return name.endswith(".py")


def _module(name: str) -> ModuleType:
    _search(Path.cwd())
    return importlib.import_module(name)


def _module_of_file(path: Path) -> ModuleType:
    """The module of a file, imported once; files beside it can be imported from it."""
    path = path.resolve()
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    if loaded is not None:  # another module has the name
        name = f"{name} ({path})"
        if name in sys.modules:
            return sys.modules[name]
    if not path.is_file():
        raise FileNotFoundError("no such file")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a path that ends in .py has a loader
    module = importlib.util.module_from_spec(spec)
    _search(path.parent)
    sys.modules[name] = module  # what dataclasses and pickle look for
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _search(folder: Path) -> None:
    """Let modules of a folder be imported."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


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

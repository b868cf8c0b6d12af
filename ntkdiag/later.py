"""Methods whose work lies in a higher room: `diagnosis.plot()` draws, and drawing comes after diagnoses.

A lower room only calls what is offered to it here. The package's root offers, since it alone stands above all rooms, and
offers names, so that nothing is loaded before the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import Any

_OFFERED: dict[str, str] = {}


def offer(methods: Mapping[str, str]) -> None:
    """Say what does the work of methods.

    Args:
        methods: "Class.method" → "module:function", a function that takes the object first.
    """
    _OFFERED.update(methods)


def work_of(method: str) -> Callable[..., Any]:
    """The function that does the work of a method, loaded now.

    Args:
        method: "Class.method".

    Example:
        >>> work_of("Diagnosis.verify").__module__
        'ntkdiag.claims.verification'
    """
    found: Callable[..., Any] = resolve_name(_OFFERED[method])
    return found

"""What is known of a figure before it is drawn: its name, its sentence, what it needs and which function draws it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FigureSpec:
    """One figure.

    Attributes:
        name: As the command line takes it.
        title: Heading.
        caption: One sentence that says how to read it.
        group: Heading of the page under which it stands; "more" for the appendix.
        module: Module of `ntkdiag.report.figures` that draws it.
        function: `function(axes, subject)`, or `function(axes, subject, panel)` where there are panels.
        subject: Which part of the material it draws: diagnosis, full (a diagnosis with the full kernel), weights, runs,
            samples or quality.
        panels: `panels(subject)` lists the names of its panels; empty: one panel without a name.
        size: Width and height of one panel, inches.
    """

    name: str
    title: str
    caption: str
    group: str
    module: str
    function: str
    subject: str = "diagnosis"
    panels: str = ""
    size: tuple[float, float] = (5.6, 3.5)

    def draw(self) -> Callable[..., None]:
        """The drawing function."""
        return self._load(self.function)

    def panel_names(self, subject: Any) -> list[str | None]:
        """Names of the panels for a subject, [None] for a figure without panels.

        Raises:
            InputError: there is nothing to draw.
        """
        return list(self._load(self.panels)(subject)) if self.panels else [None]

    def _load(self, function: str) -> Callable[..., Any]:
        return getattr(importlib.import_module(f"ntkdiag.report.figures.{self.module}"), function)

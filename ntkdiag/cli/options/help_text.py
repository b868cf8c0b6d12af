"""How `--help` is laid out: the options of each group under the group's title."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class CommandWithGroups(TyperCommand):
    """A command whose help shows each group of options in a section of its own."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, in the order in which the command declares them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = "Arguments" if parameter.param_type_name == "argument" else "Options"
                title = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

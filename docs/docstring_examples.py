"""Examples in docstrings become blocks of code in the reference: an extension of the tool that reads the docstrings."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?<=^Example:\n)(?P<code>(?:[ ]{4}.*\n?|[ ]*\n)+)", re.MULTILINE)


class FencedExamples(griffe.Extension):
    """Puts the lines under `Example:` of every docstring between fences."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(found: re.Match[str]) -> str:
    code = textwrap.dedent(found["code"]).strip("\n")
    language = "pycon" if code.startswith(">>>") else "python"
    return textwrap.indent(f"```{language}\n{code}\n```\n", "    ")

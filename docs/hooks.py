"""What the build of the manual adds to MkDocs: formulas as MathML, the help of every command, the studies' figures.

Browsers draw MathML themselves, so the pages need neither a script nor a font from elsewhere.
"""

from __future__ import annotations

import contextlib
import html
import io
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
# Figures of the studies lie outside docs/; pages link to them as on disk.
RENDERED = "../figures/rendered/"
# A function's name is set apart from an argument without brackets.
FUNCTION = re.compile(r"(<mi>(?:ln|exp|sin|cos|tan|arctan)</mi>)(?!<mo[^>]*>\(|<mo[^>]*>&#x00028;)")
HELP = re.compile(r"^\{\{ help(?: (?P<command>\w+))? \}\}$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the figures of the studies."""
    for path in sorted((Path(config.docs_dir) / RENDERED).resolve().glob("*.png")):
        files.append(File.generated(config, f"pictures/rendered/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace a line `{{ help measure }}` by what `ntkdiag measure --help` prints, and find the studies' figures."""
    markdown = markdown.replace(f"]({RENDERED}", "](pictures/rendered/")
    return HELP.sub(lambda found: f"```text\n{command_help(found['command'])}```", markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Replace the formulas that pymdownx.arithmatex has marked by MathML."""
    return FORMULA.sub(_mathml, content)


def command_help(command: str | None = None) -> str:
    """What `ntkdiag [command] --help` prints."""
    from ntkdiag.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([*([command] if command else []), "--help"])
    return printed.getvalue().lstrip("\n")


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found["open"] == "[" else "inline"
    formula = convert(html.unescape(found["latex"]).strip(), display=display)
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', formula)

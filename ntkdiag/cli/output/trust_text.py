"""What an examination of a training run says, as text of 80 columns: sentences, and a line for each noise level."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ntkdiag.report.tables import drift_table, linearity_table

if TYPE_CHECKING:
    from ntkdiag.trust import Examination

WIDTH = 80
_HEADINGS = {
    "linearity": "How many steps the kernel describes",
    "drift": "How it changed in training",
    "features": "What the features do",
    "outputs": "What the outputs do",
}


def trust_text(found: Examination) -> str:
    """Every section: its sentences, and its table where it has one."""
    parts = []
    for name, text in found.said.items():
        parts += [_HEADINGS[name], textwrap.fill(text, WIDTH)]
        if name == "linearity":
            parts.append(linearity_table(found).as_text())
        if name == "drift":
            parts.append(drift_table(found).as_text())
    return "\n\n".join(parts)

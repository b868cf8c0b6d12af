"""matplotlib imported whatever MPLBACKEND says: a value that it does not know would end the import with an error.

Figures here are drawn without a window and need no backend. A notebook leaves MPLBACKEND to every process that it starts.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def import_matplotlib() -> None:
    """Import matplotlib; where MPLBACKEND names a backend that it knows, that one is set as by matplotlib itself."""
    if "matplotlib" in sys.modules:
        return
    named = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if named is not None:
            os.environ["MPLBACKEND"] = named
    if named:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = named

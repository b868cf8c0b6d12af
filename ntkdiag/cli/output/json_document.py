"""How `--json` prints: one document on stdout, without NaN or infinity. Each command makes its own document."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """Print one JSON document on stdout; NaN and infinities become null, since JSON has neither."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """The value in types that JSON has: numpy numbers become Python's, paths text, tuples lists,
    NaN and infinities None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

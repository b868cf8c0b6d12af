"""Numbers and names as text, the same in figures, tables and the page.

Three significant digits, a real minus sign, "–" for a missing value; names given by users are cut to one printable line.
"""

from __future__ import annotations

import math
from typing import Any

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: Any, digits: int = 3) -> str:
    """A number with `digits` significant digits: 0.0123, 12.3, 1.23×10⁻⁷; "–" for NaN and None."""
    if value is None or isinstance(value, str):
        return MISSING if value is None else value
    value = float(value)
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if power < -3 or power >= 5:
        return f"{mantissa}×10{str(power).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{value:.{max(digits - 1 - power, 0)}f}".replace("-", "−")


def interval(value: Any, low: Any = None, high: Any = None, digits: int = 3) -> str:
    """A number with its interval: "8.10 [7.52, 8.69]"; the number alone where an end is missing."""
    if MISSING in (number(low), number(high)):
        return number(value, digits)
    return f"{number(value, digits)} [{number(low, digits)}, {number(high, digits)}]"


def interval_or_dash(value: Any, low: Any = None, high: Any = None, digits: int = 2) -> str:
    """A number that means nothing without its interval: "0.0026 [−0.0007, 0.0059]"; "–" where a part is missing."""
    if MISSING in (number(value), number(low), number(high)):
        return MISSING
    return interval(value, low, high, digits)


def level(log_snr: float) -> str:
    """A log-SNR with at most one decimal: "−9", "2.5"."""
    rounded = round(float(log_snr), 1) + 0.0  # + 0.0 makes −0.0 a plain zero
    return f"{rounded:g}".replace("-", "−")


def p_value(value: Any) -> str:
    """A p-value with two digits, "< 0.001" below that."""
    if number(value) == MISSING:
        return MISSING
    return "< 0.001" if float(value) < 1e-3 else f"{float(value):.2g}"


def log_tick(value: float) -> str:
    """A tick of a logarithmic axis: 0.01, 0.95, 200, 2×10⁻⁵; empty for values that such an axis cannot show."""
    if value <= 0:
        return ""
    power = math.floor(math.log10(value) + 1e-9)
    if -3 <= power <= 3:
        return f"{value:.4g}"
    lead = f"{value / 10.0**power:.3g}"
    return ("" if lead == "1" else f"{lead}×") + "10" + str(power).translate(_SUPERSCRIPT)


def one_line(text: Any, length: int = 40) -> str:
    """A name given by a user as one printable line of at most `length` characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1] + "…"

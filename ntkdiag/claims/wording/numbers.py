"""Numbers and names of effects in words, for sentences and tables."""

from __future__ import annotations

import math

from ntkdiag.claims.effects import Effect

_NAMES = {
    "participation_ratio_pairs": "pair participation ratio",
    "centred_participation_ratio_pairs": "centred pair participation ratio",
}


def named(statistic: str) -> str:
    """A statistic in words."""
    return _NAMES.get(statistic, statistic.replace("_", " "))


def short(value: float, digits: int = 2) -> str:
    """A number with a few significant digits, without an exponent for sizes of a kernel's statistics; "–" for NaN."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if -4 < power < 5:
        return f"{value:.{max(digits - 1 - power, 0)}f}".replace("-", "−")
    return f"{value:.{digits - 1}e}".replace("-", "−")


def ratio(value: float) -> str:
    """A ratio: two decimals near one, two significant digits elsewhere."""
    return f"{value:.2f}" if 0.1 <= value < 10 else short(value)


def level(log_snr: float) -> str:
    """A log-SNR with at most one decimal: "−9", "2.5"."""
    return f"{round(float(log_snr), 1) + 0.0:g}".replace("-", "−")


def factor(row: Effect) -> str:
    """The end divided by the middle, with limits: "×0.31 [0.22, 0.44]"; without limits where there are none."""
    value = f"×{ratio(math.exp(-row.effect))}" if math.isfinite(row.effect) else "–"
    if math.isnan(row.low):
        return value
    return f"{value} [{ratio(math.exp(-row.high))}, {ratio(math.exp(-row.low))}]"


def percent(share: float) -> str:
    """A share in percent."""
    if math.isnan(share):
        return "–"
    number = 100 * share
    if number == 0:
        return "0%"
    return f"{number:.1f}%" if number < 2 or 98 < number < 99.95 else f"{number:.0f}%"

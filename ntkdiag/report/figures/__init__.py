"""The figures, one file a family. Loading this package registers all of them; it loads numpy but no matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ntkdiag.report.figure_decorator import REGISTERED, ReportFigure
from ntkdiag.report.figures import (  # noqa: F401
    by_class,
    collapse,
    coupling,
    effective,
    eigenfunctions,
    full_kernel,
    loss,
    quality,
    rank,
    recoverability,
    samples,
    spectra,
    strength,
    training,
    trust,
    weights,
)

FIGURES: Mapping[str, ReportFigure[Any]] = MappingProxyType(REGISTERED)

"""ntkdiag: at which noise levels can this diffusion network still learn?

The public names, loaded on first use so that `ntkdiag --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntkdiag import data, models, report, spectra, train, weights
    from ntkdiag.claims import verify
    from ntkdiag.denoiser import Denoiser
    from ntkdiag.diagnosis import Diagnosis, FullSettings
    from ntkdiag.diagnosis.measure import measure
    from ntkdiag.kernel import Gram, NTKOperator, gram_of
    from ntkdiag.kernel.gram import gram
    from ntkdiag.process import schedules
    from ntkdiag.process.buckets import Buckets
    from ntkdiag.weights import WeightTable
    from ntkdiag.weights.audit import audit

# name → (module, attribute); attribute None means the module itself
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "Buckets": ("ntkdiag.process.buckets", "Buckets"),
    "Denoiser": ("ntkdiag.denoiser", "Denoiser"),
    "Diagnosis": ("ntkdiag.diagnosis", "Diagnosis"),
    "FullSettings": ("ntkdiag.diagnosis", "FullSettings"),
    "Gram": ("ntkdiag.kernel", "Gram"),
    "NTKOperator": ("ntkdiag.kernel", "NTKOperator"),
    "WeightTable": ("ntkdiag.weights", "WeightTable"),
    "audit": ("ntkdiag.weights.audit", "audit"),
    "data": ("ntkdiag.data", None),
    "gram": ("ntkdiag.kernel", "gram"),
    "gram_of": ("ntkdiag.kernel", "gram_of"),
    "measure": ("ntkdiag.diagnosis", "measure"),
    "models": ("ntkdiag.models", None),
    "report": ("ntkdiag.report", None),
    "schedules": ("ntkdiag.process.schedules", None),
    "spectra": ("ntkdiag.spectra", None),
    "train": ("ntkdiag.train", None),
    "verify": ("ntkdiag.claims", "verify"),
    "weights": ("ntkdiag.weights", None),
}

__all__ = [
    "Buckets",
    "Denoiser",
    "Diagnosis",
    "FullSettings",
    "Gram",
    "NTKOperator",
    "WeightTable",
    "audit",
    "data",
    "gram",
    "gram_of",
    "measure",
    "models",
    "report",
    "schedules",
    "spectra",
    "train",
    "verify",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ntkdiag' has no attribute '{name}'")
    module, attribute = _PUBLIC[name]
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

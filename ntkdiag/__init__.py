"""ntkdiag: at which noise levels can this diffusion network still learn?

The public names, loaded on first use so that `ntkdiag --help` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ntkdiag import later

if TYPE_CHECKING:
    from ntkdiag import data as data
    from ntkdiag import models as models
    from ntkdiag import report as report
    from ntkdiag import spectra as spectra
    from ntkdiag import train as train
    from ntkdiag import trust as trust
    from ntkdiag import weights as weights
    from ntkdiag.adapters.diffusers import latents as latents
    from ntkdiag.claims import by_class as by_class
    from ntkdiag.claims import verify as verify
    from ntkdiag.denoiser import Denoiser as Denoiser
    from ntkdiag.diagnosis import Diagnosis as Diagnosis
    from ntkdiag.diagnosis import FullSettings as FullSettings
    from ntkdiag.diagnosis.measure import measure as measure
    from ntkdiag.kernel import Gram as Gram
    from ntkdiag.kernel import NTKOperator as NTKOperator
    from ntkdiag.kernel import gram_of as gram_of
    from ntkdiag.kernel.gram import gram as gram
    from ntkdiag.process import schedules as schedules
    from ntkdiag.process.buckets import Buckets as Buckets
    from ntkdiag.weights import WeightTable as WeightTable
    from ntkdiag.weights.audit import audit as audit

    __version__: str

# name → "module", or "module:attribute"
_PUBLIC = {
    "Buckets": "ntkdiag.process.buckets:Buckets",
    "Denoiser": "ntkdiag.denoiser:Denoiser",
    "Diagnosis": "ntkdiag.diagnosis:Diagnosis",
    "FullSettings": "ntkdiag.diagnosis:FullSettings",
    "Gram": "ntkdiag.kernel:Gram",
    "NTKOperator": "ntkdiag.kernel:NTKOperator",
    "WeightTable": "ntkdiag.weights:WeightTable",
    "audit": "ntkdiag.weights.audit:audit",
    "by_class": "ntkdiag.claims:by_class",
    "data": "ntkdiag.data",
    "gram": "ntkdiag.kernel:gram",
    "gram_of": "ntkdiag.kernel:gram_of",
    "latents": "ntkdiag.adapters.diffusers:latents",
    "measure": "ntkdiag.diagnosis:measure",
    "models": "ntkdiag.models",
    "report": "ntkdiag.report",
    "schedules": "ntkdiag.process.schedules",
    "spectra": "ntkdiag.spectra",
    "train": "ntkdiag.train",
    "trust": "ntkdiag.trust",
    "verify": "ntkdiag.claims:verify",
    "weights": "ntkdiag.weights",
}

__all__ = list(_PUBLIC)

# Method → "module:function" in a room above that of its class, which does its work.
_METHODS = {
    "Diagnosis.plot": "ntkdiag.report.on_axes:draw",
    "Diagnosis.report": "ntkdiag.report.page.page:write_answered_page",
    "Diagnosis.verify": "ntkdiag.claims.verification:answered",
}
later.offer(_METHODS)


if not TYPE_CHECKING:  # a checker would take any misspelt name as Any

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value = version("ntkdiag")
        elif name in _PUBLIC:
            from pkgutil import resolve_name

            value = resolve_name(_PUBLIC[name])
        else:
            raise AttributeError(f"module 'ntkdiag' has no attribute '{name}'")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""Networks from elsewhere, one file for each family, and the check that they are read rightly."""

from __future__ import annotations

from ntkdiag.adapters.constructors import FromElsewhere
from ntkdiag.adapters.load_check import CheckDraws, LoadCheck, check_load
from ntkdiag.adapters.reading import Calling, Reading

__all__ = ["Calling", "CheckDraws", "FromElsewhere", "LoadCheck", "Reading", "check_load"]

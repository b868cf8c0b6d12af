"""The load check: does a network fit what is stated of it better than it fits neighbouring statements?"""

from __future__ import annotations

from ntkdiag.adapters.load_check.check import LoadCheck, check_load
from ntkdiag.adapters.load_check.draws import CheckDraws

__all__ = ["CheckDraws", "LoadCheck", "check_load"]

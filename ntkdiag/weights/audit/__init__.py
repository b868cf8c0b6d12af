"""audit: what somebody's weight function really computes, and every mistake known from public code by name."""

from __future__ import annotations

from ntkdiag.weights.audit.argument import ARGUMENTS
from ntkdiag.weights.audit.audit_finding import NAMES, AuditFinding
from ntkdiag.weights.audit.fit import TOLERANCE
from ntkdiag.weights.audit.result import Audit
from ntkdiag.weights.audit.run import audit

__all__ = ["ARGUMENTS", "NAMES", "TOLERANCE", "Audit", "AuditFinding", "audit"]

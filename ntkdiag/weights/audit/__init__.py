"""audit: which rule a weight function computes, and which of the mistakes known from public code it makes."""

from __future__ import annotations

from ntkdiag.weights.audit.argument import ARGUMENTS
from ntkdiag.weights.audit.audit_finding import NAMES, AuditFinding
from ntkdiag.weights.audit.fit import TOLERANCE
from ntkdiag.weights.audit.result import Audit
from ntkdiag.weights.audit.run import audit

__all__ = ["ARGUMENTS", "NAMES", "TOLERANCE", "Audit", "AuditFinding", "audit"]

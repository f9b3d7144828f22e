"""Public checks for methods and audits of your own: the promises each makes, and toy tasks.

from expunge.testing import check_method
check_method(MyMethod(lr=0.1))

Or, a line a promise: python -m expunge.testing my_package.my_method:MyMethod
"""

from __future__ import annotations

from expunge.testing.audits import audit_checks, check_audit
from expunge.testing.checking import Check
from expunge.testing.methods import check_method, contract_checks
from expunge.testing.saved import check_saved_runs
from expunge.testing.toys import TOYS, Toy, ToyCnn, ToyData, ToyMapping, ToyMlp, ToyName, toy

__all__ = [
    "TOYS",
    "Check",
    "Toy",
    "ToyCnn",
    "ToyData",
    "ToyMapping",
    "ToyMlp",
    "ToyName",
    "audit_checks",
    "check_audit",
    "check_method",
    "check_saved_runs",
    "contract_checks",
    "toy",
]

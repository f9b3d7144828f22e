"""Public checks for methods of your own: the promises every method makes, and toy tasks.

from expunge.testing import check_method
check_method(MyMethod(lr=0.1))
"""

from __future__ import annotations

from expunge.testing.contract import Check, check_method, check_saved_runs, contract_checks
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
    "check_method",
    "check_saved_runs",
    "contract_checks",
    "toy",
]

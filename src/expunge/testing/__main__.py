"""Every promise of one method or audit, a line each: `python -m expunge.testing METHOD`.

METHOD is "package.module:Name", a Method (class or value) or an Audit; the working directory is
searched first. Exit code 0: all is as expected; 1: a promise is broken, or one that is expected to
fail passes; 2: METHOD names nothing that can be checked.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from expunge.audits.base import Audit
from expunge.errors import ContractError, InputError
from expunge.methods.base import Method
from expunge.testing.audits import audit_checks
from expunge.testing.checking import Check
from expunge.testing.methods import expected_to_fail, strict_checks
from expunge.testing.named import named_value

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Check what is named, write a line a promise on stdout, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m expunge.testing", description="Check every promise of a method or an audit."
    )
    parser.add_argument("METHOD", help='"package.module:Name", a Method or an Audit')
    text: str = parser.parse_args(arguments).METHOD
    with _importable():
        try:
            value = named_value(text)
            failures = expected_to_fail(value) if isinstance(value, Method) else {}
            checks = list(_checks(value))
        except InputError as error:
            sys.stderr.write(f"{error}\n")
            return 2
        lines = []
        for check in checks:
            lines.append(_line(check, failures))
            sys.stdout.write(f"{lines[-1]}\n")
            sys.stdout.flush()
    return 1 if any(line.startswith("broken") for line in lines) else 0


@contextmanager
def _importable() -> Iterator[None]:
    """Make the working directory importable inside."""
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _checks(value: Method | Audit) -> Iterator[Check]:
    return strict_checks(value) if isinstance(value, Method) else audit_checks(value)


def _line(check: Check, failures: Mapping[str, str]) -> str:
    try:
        check()
    except ContractError as error:
        return f"broken  {check.name}: {_one_line(error)}"
    except Exception as error:  # noqa: BLE001  somebody else's code may raise anything
        return f"broken  {check.name}: {type(error).__name__}: {_one_line(error)}"
    if check.name in failures:
        return f"expected failure  {check.name}: {failures[check.name]}"
    return f"kept  {check.name}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

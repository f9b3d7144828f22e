"""`expunge verify`: check a certificate on stored bytes, without torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from expunge.cli._console import Screen, command

if TYPE_CHECKING:
    from expunge.certificate.verifier import Verification

__all__ = ["verify"]


class Role(StrEnum):
    """Who asks: sees everything, holds one record, or has the published files alone."""

    auditor = "auditor"
    holder = "holder"
    public = "public"


def verify(
    path: Path = typer.Argument(help="The run folder, or a certificate.dsse.json."),
    trust: Path = typer.Option(None, "--trust", help="The signer's NAME.pub.pem."),
    role: Role = typer.Option(Role.auditor, "--role", help="Which claims to check."),
    record: Path = typer.Option(None, "--record", help="The kit of a holder, N.zip."),
    base: Path = typer.Option(None, "--base", help="Weights before the edit, safetensors."),
    recompute: Path = typer.Option(
        None, "--recompute", help="A job file: compute the features again (needs torch)."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the findings as JSON."),
) -> None:
    """Verify a certificate: every claim is verified, refuted or not checked.

    Exit codes: 0 every claim of the role is verified, 10 one is refuted, 11 not all checked or
    the signer unknown, 2 unreadable. Nothing is written, and torch is not needed.
    """
    with command() as screen:
        from expunge.certificate.verifier import verify as check

        found = check(
            path,
            trust=trust,
            role=role.value,
            record=record,
            base=base,
            recompute=None if recompute is None else _recomputing(),
            job=recompute,
        )
        _show(screen, found)
        if as_json:
            screen.json(
                {
                    **dataclasses.asdict(found),
                    "verdict": found.verdict,
                    "exit_code": found.exit_code,
                }
            )
        else:
            screen.result(found.verdict)
        screen.then(_advice(found, path, trust))
        raise typer.Exit(found.exit_code)


def _recomputing() -> Callable[[Path, Path], float | str] | None:
    """What computes features again, where torch is installed."""
    try:
        if find_spec("torch") is None:
            return None
    except (ImportError, ValueError):  # torch is blocked
        return None
    found: Callable[[Path, Path], float | str]
    found = import_module("expunge.cli._recompute").recompute_features
    return found


def _show(screen: Screen, found: Verification) -> None:
    from expunge.certificate.run_record import outcome_in_words

    screen.say(found.sentence)
    if found.reach is not None:
        screen.say(found.reach)
    screen.say("")
    rows = [(claim.name, claim.status, claim.detail) for claim in found.claims]
    screen.table(("claim", "status", "detail"), rows, left=True)
    screen.say("")
    screen.say("It does not claim:")
    for line in found.does_not_claim:
        screen.say(f"  - {line}")
    if found.outcome is not None:
        screen.say(outcome_in_words(found.outcome))
    screen.say(f"role {found.role}: {found.verdict}")


def _advice(found: Verification, path: Path, trust: Path | None) -> str:
    if found.verdict == "verified":
        return "keep the certificate with the model; verify again whenever the file moves"
    if found.verdict == "refuted":
        return "do not rely on this certificate: ask its signer for the run folder as signed"
    open_names = {claim.name for claim in found.claims if claim.status == "not checked"}
    if "signature" in open_names and trust is not None:
        return f"ask for a signature: expunge sign {path} --key NAME.key.pem"
    if "signature" in open_names:
        return f"get the signer's public key, then: expunge verify {path} --trust NAME.pub.pem"
    if "rows as bound" in open_names:
        return f"without the private part: expunge verify {path} --trust {trust} --role public"
    if open_names == {"features from records"}:
        return "pip install expunge with torch, to compute features again; or leave --recompute out"
    return "put what the table calls missing beside the certificate, and verify again"

"""`expunge keygen`: a pair of keys to sign certificates with."""

from __future__ import annotations

from pathlib import Path

import typer

from expunge.cli._console import command

__all__ = ["keygen"]


def keygen(
    name: Path = typer.Argument(help="Where: writes NAME.key.pem and NAME.pub.pem."),
) -> None:
    """Make an Ed25519 pair: NAME.key.pem to sign with (mode 0600), NAME.pub.pem to hand out.

    Never writes over an existing file. Prints the path of the public key.
    """
    with command() as screen:
        from expunge.certificate.keys import keygen as make

        private, public = make(name)
        screen.say(f"keep {private} to yourself: whoever has it signs as you")
        screen.result(str(public))
        screen.then(f"expunge sign RUN --key {private}")

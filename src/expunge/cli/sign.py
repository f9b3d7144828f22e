"""`expunge sign`: add the signature to the certificate of a run."""

from __future__ import annotations

from pathlib import Path

import typer

from expunge.cli._console import command

__all__ = ["sign"]


def sign(
    run: Path = typer.Argument(help="The run folder."),
    key: Path = typer.Option(..., "--key", help="NAME.key.pem of `expunge keygen`."),
) -> None:
    """Sign the certificate of a run, and write a kit for the holder of each record.

    A certificate is signed once. Prints its path; kits are in RUN/private/holders/.
    """
    with command() as screen:
        from expunge.certificate.envelope import parse_envelope
        from expunge.certificate.keys import sign_run
        from expunge.certificate.run_record import outcome_beside, outcome_in_words
        from expunge.certificate.statement import parse_statement
        from expunge.certificate.wording import reach_of, sentence_of

        certificate = sign_run(run, key)
        statement = parse_statement(parse_envelope(certificate.read_bytes()).payload)
        outcome = outcome_beside(run)
        said = (
            sentence_of(statement),
            reach_of(statement),
            None if outcome is None else outcome_in_words(outcome),
        )
        for line in said:
            if line is not None:
                screen.say(line)
        kits = sorted((run / "private" / "holders").glob("*.zip"))
        if kits:
            screen.say(f"{len(kits)} kits, one per record, are in {kits[0].parent}")
        else:
            screen.say("no kits for holders: the run has no records, or no private part here")
        screen.result(str(certificate))
        public = str(key).removesuffix(".key.pem") + ".pub.pem"
        screen.then(f"expunge verify {run} --trust {public}")

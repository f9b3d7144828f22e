"""Keys, signatures, and the kits that a signer hands to the people whose records were forgotten."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from expunge._stored import new_folder, refuse_existing, write_private
from expunge.certificate.bundle import (
    Features,
    PrivateRecord,
    fault_in,
    features_in,
    read_file,
    records_in,
)
from expunge.certificate.canonical import VERSION, canonical
from expunge.certificate.envelope import (
    parse_envelope,
    private_key,
    signed,
    write_envelope,
)
from expunge.certificate.statement import Statement, parse_statement
from expunge.errors import InputError, OutputError

__all__ = ["keygen", "sign_run"]

_NAME = "certificate.dsse.json"
_README = """\
This kit is about one record: yours. It was forgotten, and a signed certificate says how.

kit.json holds what opens the certificate's line {index} for you alone: the salt, the record as
the model sees it, and what was promised. Keep it private: whoever has it can show that the record
was in the forgotten set.

To check the promise yourself, ask for certificate.dsse.json, model.safetensors and the signer's
NAME.pub.pem, put the first two into one folder, install the checker, and type:

    expunge verify FOLDER --trust NAME.pub.pem --role holder --record {index}.zip

The answer "verified" means: the signature is the signer's, the model file is the one that was
signed, and on your record it behaves as promised. It does not mean that the record left no trace
in the features or the weights; the certificate lists what it does not claim.
"""


def keygen(name: Path | str) -> tuple[Path, Path]:
    """Make an Ed25519 pair: NAME.key.pem (mode 0600) and NAME.pub.pem; return both paths.

    Raises OutputError where either exists or cannot be written; then neither is left behind.
    """
    name = Path(name)
    private = name.with_name(f"{name.name}.key.pem")
    public = name.with_name(f"{name.name}.pub.pem")
    for path in (private, public):
        refuse_existing(path)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made: list[Path] = []
    try:
        name.parent.mkdir(parents=True, exist_ok=True)
        for path, content in ((private, secret), (public, shown)):
            _write_new(path, content)
            made.append(path)
        public.chmod(0o644)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"Expected to be able to write {private} and {public}, but that raised {error}. Name "
            "another place; nothing was left behind."
        ) from error
    return private, public


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that did not exist, as a whole; another's file is never touched."""
    try:
        write_private(path, content)
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sign_run(run: Path | str, key_path: Path | str) -> Path:
    """Sign the certificate of a run folder, and write one kit per record to private/holders/.

    Returns the certificate's path. It is replaced by a rename, once: a signed one is refused.
    Raises InputError where the key is not Ed25519, the folder has no certificate, or its model
    file, rows or records are not those of the certificate; then nothing is written.
    """
    run, path = Path(run), Path(run) / _NAME
    pem = read_file(Path(key_path))
    if pem is None:
        raise InputError(
            f"Expected a key at {key_path}, found no file. `expunge keygen NAME` makes a pair."
        )
    key = private_key(pem)
    content = read_file(path)
    if content is None:
        raise InputError(
            f"Expected a run folder with a {_NAME} at {run}, found none. Name a run of a method "
            "that certifies, such as prune."
        )
    envelope = parse_envelope(content)
    statement = parse_statement(envelope.payload)
    if envelope.signature is not None:
        raise OutputError(
            f"Expected a certificate without a signature, got {path}, which is signed by the key "
            f"{envelope.signature.keyid[:16]}. It is signed once: verify it, or copy the run."
        )
    _check_model(run, statement)
    _write_kits(run, statement)
    _replace(path, write_envelope(signed(envelope, key)))
    return path


def _check_model(run: Path, statement: Statement) -> None:
    model = read_file(run / "model.safetensors")
    if model is None or hashlib.sha256(model).hexdigest() != statement.model.file:
        raise InputError(
            f"Expected the model file of the certificate at {run / 'model.safetensors'}, got "
            f"{'none' if model is None else 'another'}. Take the run folder from a copy; nothing "
            "was signed."
        )


def _write_kits(run: Path, statement: Statement) -> None:
    """One kit per record, where the private part is here; an earlier try's kits stay."""
    features, private = features_in(run), records_in(run)
    target = run / "private" / "holders"
    if features is None or private is None or not private.records or target.exists():
        return
    fault = fault_in(statement, features, private)
    if fault is not None:
        raise InputError(
            f"Expected the private part of {run} to open its certificate, but {fault}. Take it "
            "from a copy; nothing was signed."
        )
    with new_folder(target) as folder:
        folder.chmod(0o700)
        for entry in private.records:
            write_private(folder / f"{entry.index}.zip", _kit(entry, features))


def _kit(entry: PrivateRecord, features: Features) -> bytes:
    facts: dict[str, Any] = {
        "type": "expunge.kit",
        "version": VERSION,
        **entry.model_dump(mode="json", exclude={"request"}),
        "row": base64.b64encode(features.forget[entry.index].astype("<f4").tobytes()).decode(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (
            ("kit.json", canonical(facts)),
            ("README.txt", _README.format(index=entry.index).encode()),
        ):
            archive.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"Expected to be able to write {path}, but that raised {error}. Free some space or "
            "change its rights; the unsigned certificate is untouched."
        ) from error

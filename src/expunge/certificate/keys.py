"""Keys, signatures, and the kits that a signer hands to the people whose records were forgotten."""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from expunge.certificate.bundle import (
    Features,
    PrivateRecord,
    features_in,
    read_file,
    records_in,
)
from expunge.certificate.canonical import VERSION, canonical
from expunge.certificate.envelope import (
    CERTIFICATE,
    parse_envelope,
    private_key,
    signed,
    write_envelope,
)
from expunge.certificate.verifier import verify
from expunge.errors import InputError, OutputError
from expunge.storage.whole import new_folder, refuse_existing, replace_file, write_private

__all__ = ["keygen", "sign_run"]

_README = """\
This kit is about one record: yours. It was forgotten, and a signed certificate says how.

kit.json holds what opens the certificate's line {index} for you alone: the salt, the record as
the model sees it, and what was promised. Keep it private: whoever has it can show that the record
was in the forgotten set.

To check the promise yourself, ask for certificate.dsse.json, model.safetensors and the signer's
NAME.pub.pem, put the first two into one folder, install the checker, and type:

    expunge verify FOLDER --trust NAME.pub.pem --role holder --record {index}.zip

The answer "verified" means: the signature is the signer's, the model file is the one that was
signed, and on your record, as it was stored, it behaves as promised; changed copies of it are not
covered. It does not mean that the record left no trace in the features or the weights; the
certificate lists what it does not claim.
"""


def keygen(name: Path | str) -> tuple[Path, Path]:
    """Make an Ed25519 pair: NAME.key.pem (mode 0600) and NAME.pub.pem; return both paths.

    Raises OutputError where either exists or cannot be written; then neither is left behind.
    """
    name = Path(name)
    if not name.name:
        raise InputError(
            f"Expected a name for the keys, got {str(name)!r}. Give one, as `signing`."
        )
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
    Everything in the folder that can be checked is checked first. Raises InputError where the key
    is not Ed25519, the folder has no certificate, no model file, or a claim is refuted;
    OutputError where another signer is at work, or holders/ has other kits. Then nothing is signed.
    """
    run, path = Path(run), Path(run) / CERTIFICATE
    pem = read_file(Path(key_path))
    if pem is None:
        raise InputError(
            f"Expected a key at {key_path}, found no file. `expunge keygen NAME` makes a pair."
        )
    key = private_key(pem)
    if not path.exists():
        raise InputError(
            f"Expected a run folder with a {CERTIFICATE} at {run}, found none. Name a run of a "
            "method that certifies, such as prune."
        )
    with _alone(path):
        envelope = parse_envelope(path.read_bytes())
        if envelope.signature is not None:
            raise OutputError(
                f"Expected a certificate without a signature, got {path}, which is signed by the "
                f"key {envelope.signature.keyid[:16]}. It is signed once: verify it, or copy the "
                "run."
            )
        _refuse_false(run)
        _write_kits(run)
        replace_file(path, write_envelope(signed(envelope, key)))
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the right to sign: a second signer would discard the first one's signature."""
    lock = path.with_name(f".{path.name}.signing")
    try:
        write_private(lock, b"")
    except FileExistsError as error:
        raise OutputError(
            f"Expected to be the only signer of {path}, but {lock.name} is there. Wait for the "
            "other, or remove that file where a signing was cut off."
        ) from error
    except OSError as error:
        raise OutputError(
            f"Expected to be able to write beside {path}, but that raised {error}. Change its "
            "rights, or copy the run; nothing was signed."
        ) from error
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _refuse_false(run: Path) -> None:
    """Raise InputError where the checker refutes a claim, or has no model file to check."""
    for claim in verify(run).claims:
        absent = claim.name == "model file" and claim.status == "not checked"
        if claim.status == "refuted" or absent:
            raise InputError(
                f"Expected a run in {run} whose claims hold, but {claim.name}: {claim.detail}. "
                "Take the run folder from a copy; nothing was signed."
            )


def _write_kits(run: Path) -> None:
    """One kit per record, where the private part is here; those of a cut signing must be the same.

    Raises OutputError where holders/ has other files.
    """
    features, private = features_in(run), records_in(run)
    if features is None or private is None or not private.records:
        return
    kits = {f"{entry.index}.zip": _kit(entry, features) for entry in private.records}
    target = run / "private" / "holders"
    if target.exists():
        found = {p.name: p.read_bytes() for p in target.iterdir() if p.is_file()}
        if {n: _facts(kit) for n, kit in found.items()} != {n: _facts(kits[n]) for n in kits}:
            raise OutputError(
                f"Expected no kits in {target}, or those of this certificate, got others. Move "
                "the folder away; nothing was signed."
            )
        return
    with new_folder(target) as folder:
        folder.chmod(0o700)
        for name, content in kits.items():
            write_private(folder / name, content)


def _facts(kit: bytes) -> bytes:
    """What a kit proves, whatever its README says; the whole where it is no kit."""
    try:
        with zipfile.ZipFile(io.BytesIO(kit)) as archive:
            return archive.read("kit.json")
    except (zipfile.BadZipFile, KeyError):
        return kit


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

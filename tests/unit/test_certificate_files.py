"""Writing, reading back, signing, kits and keys: what lies where, and who may read it."""

import json
import stat
import zipfile

import numpy as np
import pytest
from certificate_toys import (
    CERTIFICATE,
    facts,
    gated_toy,
    input_toy,
    merged_toy,
    narrow_toy,
    rows_and_tensors,
)
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from expunge.certificate import (
    DOES_NOT_CLAIM,
    keygen,
    payload_digest,
    read_evidence,
    sign_run,
    verify,
    write_certificate,
)
from expunge.certificate.envelope import private_key
from expunge.certificate.statement import Statement
from expunge.errors import InputError, OutputError

TOYS = [gated_toy, narrow_toy, merged_toy, input_toy]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("make", TOYS)
def test_a_run_verifies_and_reads_back_in_full(make, tmp_path):
    toy = make(tmp_path)
    found = verify(toy.run, trust=toy.public, base=toy.base)
    assert (found.exit_code, found.verdict) == (0, "verified")
    assert {claim.status for claim in found.claims} == {"verified"}
    assert found.does_not_claim == DOES_NOT_CLAIM
    assert found.payload_digest == payload_digest(toy.run)
    back = read_evidence(toy.run)
    for name in Statement.model_fields.keys() & {"form", "spec", "rule", "removed", "previous"}:
        assert getattr(back, name) == getattr(toy.evidence, name)
    for name in ("head", "classes", "features", "layers", "seed", "tune_digest", "base"):
        assert getattr(back, name) == getattr(toy.evidence, name)
    np.testing.assert_array_equal(back.retained, toy.evidence.retained)
    assert back.unmerged == toy.evidence.unmerged
    assert back.retained_salt == toy.evidence.retained_salt
    for kind in ("records", "entangled"):
        got, wanted = getattr(back, kind), getattr(toy.evidence, kind)
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            for name in type(a).__slots__:
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_later_request_can_append(tmp_path):
    toy = gated_toy(tmp_path)
    before = payload_digest(toy.run)
    toy.rewrite(records=read_evidence(toy.run).records, previous=before)
    assert toy.payload["previous"] == before
    assert payload_digest(toy.run) != before
    assert verify(toy.run, trust=toy.public).exit_code == 0


def test_a_folder_without_certificate_has_no_evidence(tmp_path):
    assert read_evidence(tmp_path) is None
    assert payload_digest(tmp_path) is None
    with pytest.raises(InputError, match="Expected a certificate at"):
        verify(tmp_path)


@pytest.mark.parametrize("gone", ["features.safetensors", "private/records.json"])
def test_evidence_is_not_read_back_in_part(tmp_path, gone):
    toy = gated_toy(tmp_path)
    (toy.run / gone).unlink()
    with pytest.raises(InputError, match="cannot be carried on: put them back"):
        read_evidence(toy.run)


def test_evidence_that_was_changed_is_not_read_back(tmp_path):
    toy = gated_toy(tmp_path)
    path = toy.run / "private" / "records.json"
    path.write_bytes(path.read_bytes().replace(b"record-0", b"record-9"))
    with pytest.raises(InputError, match="record 0: salt, id, label and row do not open"):
        read_evidence(toy.run)


def test_what_is_private_stays_private(tmp_path):
    toy = gated_toy(tmp_path)
    private = toy.run / "private"
    for path in (private, private / "holders"):
        assert mode(path) == 0o700
    files = [*private.glob("*.json"), *private.glob("holders/*"), toy.run / "features.safetensors"]
    assert len(files) == 2 + 3 + 1
    assert {mode(path) for path in files} == {0o600}
    shown = json.dumps(toy.payload)
    for record in (*toy.evidence.records, *toy.evidence.entangled):
        assert record.id not in shown
        assert record.salt not in shown
    assert toy.evidence.retained_salt not in shown
    public = toy.evidence.retained_salt.encode()
    assert public not in (toy.run / "features.safetensors").read_bytes()


def test_the_statement_says_what_the_evidence_says(tmp_path):
    payload = gated_toy(tmp_path).payload
    assert payload["method"] == {
        "name": "prune", "whiten": "0x1.0000000000000p-1", "lp": "true", "most": "null",
        "rounds": "3",
    }  # fmt: skip
    assert payload["claim"].startswith(
        "Of 6 forgotten records, each given its features: for 1 every output lies within 0.000101 "
    )
    assert "for 2 nothing is claimed, since they are means of retained rows;" in payload["claim"]
    assert "for 1 nothing is claimed, since no gate holds beyond rounding" in payload["claim"]
    assert "every gate is shut" in payload["claim"]
    merged = merged_toy(tmp_path / "merged").payload
    assert merged["claim"].startswith("Of 5 forgotten records")
    assert "for 2 nothing is claimed, since they did not fit" in merged["claim"]
    assert payload["does_not_claim"] == list(DOES_NOT_CLAIM)
    narrow = narrow_toy(tmp_path / "narrow").payload
    assert (narrow["kept"], narrow["removed"]) == ([0, 2, 3], [1])
    assert "For every possible input" in narrow["claim"]


def test_evidence_that_contradicts_itself_is_refused(tmp_path):
    retained, _, _, _ = rows_and_tensors()
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for changes in ({"form": "narrow"}, {"removed": (1,)}, {"spec": "absent"}):
        with pytest.raises(InputError, match="Expected evidence that a certificate can state"):
            write_certificate(tmp_path, facts(retained, {}, **changes))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_published_schema_is_that_of_the_models():
    from importlib.resources import files

    text = (files("expunge.certificate") / "certificate.v1.schema.json").read_text()
    assert json.loads(text) == Statement.model_json_schema()


# keys


def test_keys_come_in_pairs_and_never_over_a_file(tmp_path):
    private, public = keygen(tmp_path / "new" / "a.b")
    assert (private.name, public.name) == ("a.b.key.pem", "a.b.pub.pem")
    assert (mode(private), mode(public)) == (0o600, 0o644)
    for path in (private, public):
        other = public if path == private else private
        content = other.read_bytes()
        path.unlink()
        with pytest.raises(OutputError, match="does not exist yet"):
            keygen(tmp_path / "new" / "a.b")
        assert other.read_bytes() == content
        assert not path.exists()
        path.write_bytes(b"")


def test_keys_leave_nothing_behind_where_one_fails(tmp_path, monkeypatch):
    from expunge.certificate import keys

    true = keys.write_private

    def failing(path, content):
        if path.name.endswith(".pub.pem"):
            path.write_bytes(content[:3])
            raise OSError(28, "No space left on device")
        true(path, content)

    monkeypatch.setattr(keys, "write_private", failing)
    with pytest.raises(OutputError, match="nothing was left behind"):
        keygen(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def rsa():
    return generate_private_key(65537, 1024)


def test_keys_of_another_kind_are_refused(tmp_path, rsa):
    toy = gated_toy(tmp_path)
    toy.state(toy.payload, signature=False)
    before = toy.certificate.read_bytes()
    pem = tmp_path / "rsa.pem"
    pem.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(InputError, match="Expected an Ed25519 private key in PEM, got RSA"):
        sign_run(toy.run, pem)
    with pytest.raises(InputError, match="Ed25519 public key in PEM"):
        verify(toy.run, trust=pem)
    pem.write_bytes(rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="Expected an Ed25519 public key in PEM, got RSA"):
        verify(toy.run, trust=pem)
    locked = private_key(toy.key.read_bytes()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word")
    )
    pem.write_bytes(locked)
    with pytest.raises(InputError, match="Expected an Ed25519 private key in PEM, got Password"):
        sign_run(toy.run, pem)
    pem.write_bytes(b"no key")
    with pytest.raises(InputError, match="Ed25519 private key"):
        sign_run(toy.run, pem)
    with pytest.raises(InputError, match="found no file"):
        sign_run(toy.run, tmp_path / "none.pem")
    assert toy.certificate.read_bytes() == before


def test_a_run_is_signed_once_and_whole(tmp_path):
    toy = gated_toy(tmp_path)
    with pytest.raises(OutputError, match="signed once"):
        sign_run(toy.run, toy.key)
    toy.state(toy.payload, signature=False)
    digest = payload_digest(toy.run)
    assert sign_run(toy.run, toy.key) == toy.run / CERTIFICATE
    assert payload_digest(toy.run) == digest
    assert not list(toy.run.glob(".*"))
    with pytest.raises(InputError, match="Expected a run folder with a certificate"):
        sign_run(tmp_path, toy.key)


def test_what_is_not_the_certificates_is_not_signed(tmp_path):
    toy = gated_toy(tmp_path)
    toy.state(toy.payload, signature=False)
    before = toy.certificate.read_bytes()
    model = toy.run / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content + b"\0")
    with pytest.raises(InputError, match="nothing was signed"):
        sign_run(toy.run, toy.key)
    model.unlink()
    with pytest.raises(InputError, match=r"there is no model\.safetensors"):
        sign_run(toy.run, toy.key)
    model.write_bytes(content)
    for path in (toy.run / "private" / "holders").iterdir():
        path.unlink()
    (toy.run / "private" / "holders").rmdir()
    records = toy.run / "private" / "records.json"
    records.write_bytes(records.read_bytes().replace(b"record-1", b"record-7"))
    with pytest.raises(InputError, match="nothing was signed"):
        sign_run(toy.run, toy.key)
    assert toy.certificate.read_bytes() == before
    assert not (toy.run / "private" / "holders").exists()


# kits


def test_each_holder_can_check_the_own_record_with_the_kit_alone(tmp_path):
    toy = gated_toy(tmp_path)
    for index, record in enumerate(toy.evidence.records):
        kit = toy.run / "private" / "holders" / f"{index}.zip"
        with zipfile.ZipFile(kit) as archive:
            assert sorted(archive.namelist()) == ["README.txt", "kit.json"]
            assert f"--record {index}.zip" in archive.read("README.txt").decode()
            assert json.loads(archive.read("kit.json"))["id"] == record.id
        moved = tmp_path / f"{index}.zip"
        moved.write_bytes(kit.read_bytes())
        found = verify(toy.run, trust=toy.public, role="holder", record=moved)
        assert found.exit_code == 0
        assert found.claims[-1].name == "this record"


def kit_with(toy, path, change):
    with zipfile.ZipFile(toy.run / "private" / "holders" / "0.zip") as archive:
        kit = json.loads(archive.read("kit.json"))
    change(kit)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kit.json", json.dumps(kit, sort_keys=True, separators=(",", ":")))
    return path


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (lambda k: k.update(bound=(1e-6).hex()), "claims another bound"),
        (lambda k: k["target"].reverse(), "target does not open"),
        (lambda k: k.update(target=None), "target does not open"),
        (lambda k: k.update(claim="margin"), "claims another bound"),
    ],
)
def test_a_kit_that_was_promised_more_is_refuted(tmp_path, change, detail):
    toy = gated_toy(tmp_path)
    kit = kit_with(toy, tmp_path / "kit.zip", change)
    found = verify(toy.run, trust=toy.public, role="holder", record=kit)
    assert found.exit_code == 10
    assert detail in found.claims[-1].detail


@pytest.mark.parametrize(
    "change",
    [
        lambda k: k.update(salt="0" * 64),
        lambda k: k.update(id="someone else"),
        lambda k: k.update(label=3),
        lambda k: k.update(row=k["row"][:16]),
    ],
)
def test_a_record_that_is_not_in_the_certificate_is_an_error(tmp_path, change):
    toy = gated_toy(tmp_path)
    kit = kit_with(toy, tmp_path / "kit.zip", change)
    with pytest.raises(InputError, match="to be in the certificate, found no commitment"):
        verify(toy.run, trust=toy.public, role="holder", record=kit)


def test_damaged_kits_are_refused(tmp_path):
    toy = gated_toy(tmp_path)
    content = (toy.run / "private" / "holders" / "0.zip").read_bytes()
    path = tmp_path / "kit.zip"
    for at in range(0, len(content), 5):
        changed = bytearray(content)
        changed[at] ^= 255
        path.write_bytes(bytes(changed))
        try:
            verify(toy.run, trust=toy.public, role="holder", record=path)
        except InputError:
            continue
    for change, message in (
        (lambda k: k.update(version=2), "newer Expunge"),
        (lambda k: k.update(row="?"), "base64 of float32"),
        (lambda k: k.update(more=1), "more"),
    ):
        kit = kit_with(toy, path, change)
        with pytest.raises(InputError, match=message):
            verify(toy.run, trust=toy.public, role="holder", record=kit)
    with pytest.raises(InputError, match="found no file"):
        verify(toy.run, role="holder", record=tmp_path / "none.zip")


def test_a_kit_and_the_role_of_a_holder_go_together(tmp_path):
    toy = gated_toy(tmp_path)
    with pytest.raises(InputError, match="role 'holder' without it"):
        verify(toy.run, role="holder")
    with pytest.raises(InputError, match="role 'auditor' with it"):
        verify(toy.run, record=tmp_path / "0.zip")


def test_features_are_computed_again_only_where_that_is_possible(tmp_path):
    toy = gated_toy(tmp_path)
    job = tmp_path / "job.toml"
    found = verify(toy.run, trust=toy.public, job=job)
    assert (found.exit_code, found.claims[-1].name) == (11, "features from records")
    for largest, wanted in ((0.0, 0), (1.0, 10), (float("nan"), 10)):
        found = verify(toy.run, trust=toy.public, job=job, recompute=lambda *_, x=largest: x)
        assert found.exit_code == wanted

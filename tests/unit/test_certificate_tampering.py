"""Whatever is changed in a signed run, the checker does not accept it, and does not crash."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from certificate_toys import CERTIFICATE, CLASSES, SIZE, gated_toy, merged_toy, narrow_toy, salt

from expunge.certificate import keygen, verify
from expunge.certificate.canonical import canonical
from expunge.certificate.envelope import parse_envelope
from expunge.errors import ExpungeError, InputError


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return gated_toy(tmp_path_factory.mktemp("toy") / "gated")


@pytest.fixture
def toy(original, tmp_path):
    """A private copy of the signed run."""
    folder = tmp_path / "copy"
    shutil.copytree(original.run.parent, folder)
    moved = {
        name: folder / Path(getattr(original, name)).name
        for name in ("run", "key", "public", "base")
    }
    return type(original)(**moved, evidence=original.evidence)


def code(toy, **options):
    try:
        return verify(toy.run, trust=toy.public, **options).exit_code
    except ExpungeError:
        return 2


def refuted(toy, **options):
    found = verify(toy.run, trust=toy.public, **options)
    assert found.exit_code == 10
    return {claim.name: claim.detail for claim in found.claims if claim.status == "refuted"}


@pytest.mark.parametrize("bit", [1, 32, 128])
@pytest.mark.parametrize("name", [CERTIFICATE, "model.safetensors"])
def test_no_flipped_byte_is_accepted(toy, name, bit):
    assert code(toy, role="public") == 0
    path = toy.run / name
    content = path.read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= bit
        path.write_bytes(bytes(changed))
        assert code(toy, role="public") in (2, 10), f"byte {at}"


def test_no_flipped_byte_of_an_unsigned_certificate_is_accepted(toy):
    toy.state(toy.payload, signature=False)
    content = toy.certificate.read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1
        toy.certificate.write_bytes(bytes(changed))
        assert code(toy) in (2, 10, 11), f"byte {at}"


@pytest.mark.parametrize("name", [CERTIFICATE, "model.safetensors", "features.safetensors"])
def test_no_shortened_or_lengthened_file_is_accepted(toy, name):
    path = toy.run / name
    content = path.read_bytes()
    for changed in (
        b"",
        content[:-1],
        content + b"\n",
        content + b"\0",
        content[: len(content) // 2],
    ):
        path.write_bytes(changed)
        assert code(toy) in (2, 10)


def test_flipped_rows_salts_and_targets_are_not_accepted(toy):
    blob = (toy.run / "features.safetensors").read_bytes()
    start = 8 + int.from_bytes(blob[:8], "little")
    for at in range(start, len(blob), 7):
        changed = bytearray(blob)
        changed[at] ^= 1
        (toy.run / "features.safetensors").write_bytes(bytes(changed))
        assert "rows as bound" in refuted(toy)
    (toy.run / "features.safetensors").write_bytes(blob)
    for name in ("records.json", "witnesses.json"):
        path = toy.run / "private" / name
        content = path.read_bytes()
        for at in range(0, len(content), 3):
            changed = bytearray(content)
            changed[at] ^= 1
            path.write_bytes(bytes(changed))
            assert code(toy) in (2, 10), f"{name}: byte {at}"
        path.write_bytes(content)


def test_a_stripped_or_foreign_signature_is_not_accepted(toy, tmp_path):
    _, stranger = keygen(tmp_path / "stranger")
    assert (
        "trusted key"
        in {c.name: c.detail for c in verify(toy.run, trust=stranger).claims}["signature"]
    )
    assert verify(toy.run, trust=stranger).exit_code == 10
    assert verify(toy.run).exit_code == 11
    toy.state(toy.payload, signature=False)
    found = verify(toy.run, trust=toy.public)
    assert (found.exit_code, found.verdict) == (11, "not all checked")
    assert {c.name for c in found.claims if c.status == "not checked"} == {"signature"}


def outer(toy, change):
    facts = json.loads(toy.certificate.read_bytes())
    change(facts)
    toy.certificate.write_bytes(canonical(facts))


def test_a_keyid_must_be_that_of_the_key(toy):
    outer(toy, lambda f: f["signatures"][0].update(keyid="0" * 64))
    assert "signature" in refuted(toy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f["signatures"].append(f["signatures"][0]), "at most one signature"),
        (lambda f: f.update(more=1), "fields payload"),
        (lambda f: f["signatures"][0].update(more=1), "fields keyid and sig"),
        (lambda f: f["signatures"][0].update(keyid=3), "keyid that is a text"),
        (lambda f: f.update(payload=f["payload"] + "\n"), "strict base64"),
        (lambda f: f.update(payload=7), "strict base64"),
        (lambda f: f["signatures"][0].update(sig="AB=="), "strict base64"),
        (lambda f: f.update(payloadType="text/plain"), "payloadType"),
        (lambda f: f.update(payloadType=f["payloadType"].replace("v1", "v2")), "version 1, got"),
    ],
)
def test_envelopes_in_any_other_form_are_refused(toy, change, message):
    outer(toy, change)
    with pytest.raises(InputError, match=message):
        verify(toy.run, trust=toy.public)


def test_the_same_envelope_in_other_bytes_is_refused(toy):
    content = toy.certificate.read_bytes()
    facts = json.loads(content)
    first = next(iter(facts))
    for changed in (
        json.dumps(facts, indent=1).encode(),
        content.replace(b'{"payload"', b'{ "payload"', 1),
        content[:-1] + b',"' + first.encode() + b'":"x"}',
        b"\xef\xbb\xbf" + content,
        b"[" * 50_000,
        b"NaN",
    ):
        toy.certificate.write_bytes(changed)
        with pytest.raises(InputError, match="canonical JSON"):
            verify(toy.run, trust=toy.public)


def signed_anew(change):
    """A change of the payload by someone who holds the trusted key."""

    def apply(toy):
        payload = toy.payload
        change(payload)
        toy.state(payload)

    return apply


PAYLOADS = {
    "newer version": (lambda p: p.update(version=2), "newer Expunge"),
    "true is no version": (lambda p: p.update(version=True), "version 1"),
    "other type": (lambda p: p.update(type="other"), "expunge.certificate"),
    "unknown field": (lambda p: p.update(critical=["x"]), "critical"),
    "unknown inner field": (lambda p: p["model"].update(x=1), "model.x"),
    "missing field": (lambda p: p.pop("rule"), "rule"),
    "number as text": (lambda p: p.update(not_merged="0"), "not_merged"),
    "bound is NaN": (lambda p: p["records"][0].update(bound="nan"), "records.0.bound"),
    "bound is infinite": (lambda p: p["records"][0].update(bound="inf"), "records.0.bound"),
    "bound overflows": (lambda p: p["records"][0].update(bound="0x1.0p+9999"), "records.0.bound"),
    "bound is decimal": (lambda p: p["records"][0].update(bound="0.5"), "records.0.bound"),
    "bound in other digits": (
        lambda p: p["records"][0].update(bound="0x1.0p+0"),
        "records.0.bound",
    ),
    "negative bound": (
        lambda p: p["records"][0].update(bound="-0x1.0000000000000p+0"),
        "below what means anything",
    ),
    "no margin at all": (lambda p: p["records"][2].update(bound="0x0.0p+0"), "below what means"),
    "unknown claim": (lambda p: p["records"][0].update(claim="forgotten"), "records.0.claim"),
    "other arithmetic": (lambda p: p["arithmetic"].update(semantics="bfloat16"), "arithmetic"),
    "gates without claim": (lambda p: p["retained"].update(claim="none"), "gates are shut"),
    "record twice": (lambda p: p["records"].append(p["records"][0]), "stands twice"),
    "short digest": (lambda p: p.update(previous="ab"), "previous"),
    "removed without narrow": (lambda p: p.update(removed=[1]), "classes are removed"),
    "bound that says nothing": (
        lambda p: p["records"][0].update(bound=(0.125).hex()),
        "so wide that it says nothing",
    ),
    "seed without end": (lambda p: p.update(seed="9" * 5001), "seed"),
    "words that steer a terminal": (lambda p: p.update(rule="\x1b[2J"), "rule"),
    "targets from nowhere": (lambda p: p.update(tune_logits=""), "logits with a digest"),
    "targets by no rule": (lambda p: p.update(rule=""), "drawn by a rule"),
    "no claim at all": (lambda p: p.update(records=[]), "no record has a claim"),
    "other specification": (lambda p: p.update(spec="mispredict"), "specification"),
}


@pytest.mark.parametrize(("change", "message"), PAYLOADS.values(), ids=PAYLOADS.keys())
def test_payloads_in_any_other_form_are_refused(toy, change, message):
    signed_anew(change)(toy)
    with pytest.raises(InputError, match=message):
        verify(toy.run, trust=toy.public)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw + b"\n",
        lambda raw: raw.replace(b'"version":1', b'"version":1.0'),
        lambda raw: raw.replace(b'"version":1', b'"version":NaN'),
        lambda raw: raw.replace(b'"not_merged":0', b'"not_merged":0,"not_merged":0'),
        lambda raw: raw.replace(b'"not_merged":0', b'"not_merged":-0'),
        lambda raw: raw.replace(b'"not_merged":0', b'"not_merged":' + b"9" * 5000),
        lambda raw: raw.replace(b'"rule":"', b'"rule":"\\ud800'),
        lambda raw: raw.replace(b"expunge.certificate", b"expunge\\u002ecertificate"),
        lambda raw: b"\xff" + raw,
        lambda raw: b"",
    ],
)
def test_payload_bytes_that_are_not_canonical_are_refused(toy, change):
    raw = parse_envelope(toy.certificate.read_bytes()).payload
    assert change(raw) != raw
    toy.state(change(raw))
    with pytest.raises(InputError, match="canonical JSON"):
        verify(toy.run, trust=toy.public)


SIGNED = {
    "edited does_not_claim": (lambda p: p["does_not_claim"].pop(), "wording"),
    "softened does_not_claim": (
        lambda p: p["does_not_claim"].__setitem__(0, "Nothing."),
        "wording",
    ),
    "nicer sentence": (lambda p: p.update(claim="All is forgotten."), "wording"),
    "dropped record": (lambda p: p["records"].pop(), "rows as bound"),
    "swapped records": (lambda p: p["records"].reverse(), "rows as bound"),
    "weakened bound": (
        lambda p: p["records"][0].update(bound=(2.0**-5).hex()),
        "rows as bound",
    ),
    "weakened margin": (lambda p: p["records"][2].update(bound=(1e-9).hex()), "rows as bound"),
    "other request": (lambda p: p["records"][0].update(request=4), "rows as bound"),
    "other target": (lambda p: p["records"][0].update(target=salt("x")), "rows as bound"),
    "other root": (lambda p: p["retained"].update(root=salt("x")), "rows as bound"),
    "fewer retained": (lambda p: p["retained"].update(count=19), "rows as bound"),
    "other witnesses": (lambda p: p["entangled"].update(witnesses=salt("x")), "entangled records"),
    "other reason": (
        lambda p: p["entangled"]["records"][1].update(reason="rounding"),
        "rows as bound",
    ),
    "other model": (lambda p: p["model"].update(file=salt("x")), "model file"),
    "tensor not stated": (lambda p: p["model"]["edited"].pop("fc.shift"), "model file"),
    "other base": (
        lambda p: p["model"]["base"].update({"conv.weight": salt("x")}),
        "base weights kept",
    ),
    "base tensor hidden": (lambda p: p["model"]["base"].pop("conv.weight"), "base weights kept"),
    "other head": (lambda p: p["model"].update(head="head"), "form of the head"),
    "other row length": (lambda p: p["model"].update(row=SIZE + 1), "form of the head"),
    "other classes": (lambda p: p["model"].update(classes=5), "form of the head"),
}


@pytest.mark.parametrize(("change", "name"), SIGNED.values(), ids=SIGNED.keys())
def test_false_statements_are_refuted_although_signed(toy, change, name):
    signed_anew(change)(toy)
    assert name in refuted(toy)


def test_false_facts_are_refuted_although_signed_and_consistent(toy):
    first, margin, last = toy.evidence.records
    replace = type(toy).rewrite
    for records in (
        (swap(first, tolerance=1e-9), margin, last),
        (swap(first, target=first.target + 1e-3), margin, last),
        (first, swap(margin, target=margin.target + np.eye(CLASSES)[margin.label]), last),
        (first, margin, swap(last, tolerance=last.tolerance + 1)),
        (swap(first, row=margin.row), swap(margin, row=first.row), last),
    ):
        replace(toy, records=records)
        assert set(refuted(toy)) == {"forgotten records"}
    replace(toy, retained=np.concatenate([toy.evidence.retained, first.row[None]]))
    assert set(refuted(toy)) == {"gates shut"}
    replace(toy, records=(swap(first, row=first.row * np.float32(np.nan)), margin, last))
    assert "not finite" in refuted(toy)["rows as bound"]


def swap(record, **changes):
    from dataclasses import replace

    return replace(record, **changes)


def test_models_that_do_other_things_are_refuted_although_signed(toy):
    weight = np.eye(3, SIZE, dtype=np.float32)
    toy.model(**{"fc.gate_bias": np.full(3, -0.5, np.float32)})
    assert "gates shut" in refuted(toy)
    toy.model(**{"fc.gate_bias": np.full(3, -9, np.float32)})
    assert "forgotten records" in refuted(toy)
    toy.model(**{"fc.gate_bias": np.full(3, np.nan, np.float32)})
    assert "finite" in refuted(toy)["form of the head"]
    toy.model(**{"fc.gate_bias": np.full(3, -3, np.float16)})
    assert "float32" in refuted(toy)["form of the head"]
    toy.model(
        **{"fc.gate_bias": np.full(3, -3, np.float32), "fc.gate_weight": weight[:, :2].copy()}
    )
    assert "6 columns" in refuted(toy)["form of the head"]
    toy.model(**{"fc.gate_weight": weight, "fc.weight": np.zeros((4, SIZE), np.float32)})
    assert "base weights kept" in refuted(toy)
    toy.model(extra=np.zeros(1, np.float32))
    assert "base weights kept" in refuted(toy)


def test_another_model_file_is_refuted_and_nothing_is_said_about_it(toy, original):
    from safetensors.numpy import load_file, save_file

    path = toy.run / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "np"})
    assert set(refuted(toy)) == {"model file"}
    open_claims = {
        c.name for c in verify(toy.run, trust=toy.public).claims if c.status == "not checked"
    }
    assert open_claims == {
        "form of the head", "forgotten records", "gates shut", "entangled records",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        ("model.safetensors", {"model file", "form of the head", "forgotten records"}),
        ("features.safetensors", {"rows as bound", "gates shut"}),
        ("private/records.json", {"rows as bound", "forgotten records"}),
        ("private/witnesses.json", {"entangled records"}),
    ],
)
def test_what_is_missing_is_not_checked(toy, gone, names):
    (toy.run / gone).unlink()
    found = verify(toy.run, trust=toy.public)
    assert found.exit_code == 11
    assert names <= {c.name for c in found.claims if c.status == "not checked"}


def test_the_public_needs_neither_rows_nor_private_files(toy):
    (toy.run / "features.safetensors").unlink()
    shutil.rmtree(toy.run / "private")
    assert verify(toy.run, trust=toy.public, role="public").exit_code == 0
    assert verify(toy.certificate, trust=toy.public, role="public").exit_code == 0


def test_narrow_and_merged_models_that_keep_what_they_should_not_are_refuted(tmp_path):
    narrow = narrow_toy(tmp_path / "narrow")
    assert code(narrow) == 0
    narrow.model(**{"fc.kept": np.array([0, 1, 2], dtype=np.int64)})
    assert "classes that are left" in refuted(narrow)["form of the head"]
    narrow.model(**{"fc.kept": np.array([0, 2, 3], dtype=np.int64)})
    assert code(narrow) == 0
    narrow.model(**{"fc.weight": np.zeros((4, SIZE), np.float32)})
    assert "form of the head" in refuted(narrow)
    merged = merged_toy(tmp_path / "merged")
    assert code(merged) == 0
    shift = {"fc.gate_bias": np.zeros(1, np.float32), "fc.shift": np.ones((4, 1), np.float32)}
    merged.model(**shift, **{"fc.gate_weight": np.ones((1, SIZE), np.float32)})
    assert {"base weights kept", "form of the head"} <= set(refuted(merged))


def test_other_base_weights_are_refuted(toy):
    assert code(toy, base=toy.base) == 0
    assert "base weights" in refuted(toy, base=toy.run / "model.safetensors")


def test_base64_of_the_payload_has_one_form(toy):
    facts = json.loads(toy.certificate.read_bytes())
    raw = base64.b64decode(facts["payload"])
    assert base64.b64encode(raw).decode() == facts["payload"]

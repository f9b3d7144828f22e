"""Signed certificates that are false, or made to break the checker or the signer."""

import hashlib
import json
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from certificate_toys import (
    CLASSES,
    SIZE,
    digests,
    facts,
    gated_toy,
    input_toy,
    made,
    merged_toy,
    narrow_toy,
    rows_and_tensors,
    salt,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from safetensors.numpy import load_file, save_file

from expunge.certificate import keygen, read_evidence, sign_run, verify
from expunge.certificate.claims import by_bound
from expunge.certificate.digests import read_tensors, tensor_digests, witnesses_commitment
from expunge.cli._recompute import apart
from expunge.errors import InputError, OutputError


def refuted(toy, **options):
    found = verify(toy.run, trust=toy.public, **options)
    assert found.exit_code == 10
    return {claim.name: claim.detail for claim in found.claims if claim.status == "refuted"}


# weights that are not what the form says


def test_a_head_that_lost_no_row_is_not_narrow(tmp_path):
    _, _, base, _ = rows_and_tensors()
    evidence = facts(
        np.zeros((0, SIZE), np.float32),
        digests(base, tmp_path),
        form="narrow",
        spec="absent",
        classes=CLASSES + 1,
        removed=(1,),
        tune_digest="",
    )
    untouched = base | {"fc.kept": np.array([0, 2, 3, 4], dtype=np.int64)}
    with pytest.raises(InputError, match="no row was taken away"):
        made(tmp_path, evidence, untouched)


def test_a_head_that_the_base_has_not_is_no_head(tmp_path):
    toy = narrow_toy(tmp_path)
    tensors = load_file(toy.run / "model.safetensors")
    _, _, base, _ = rows_and_tensors()
    own = {n.replace("fc.", "aux."): t for n, t in tensors.items() if n.startswith("fc.")}
    save_file(base | own, toy.run / "model.safetensors")
    toy.model()
    payload = toy.payload
    payload["model"]["head"] = "aux"
    toy.state(payload)
    assert "not a head of the base" in refuted(toy)["base weights kept"]


def test_rows_that_are_left_must_be_those_of_the_base(tmp_path):
    toy = narrow_toy(tmp_path)
    assert verify(toy.run, trust=toy.public, base=toy.base).exit_code == 0
    weight = load_file(toy.run / "model.safetensors")["fc.weight"]
    toy.model(**{"fc.weight": weight + np.float32(1)})
    assert verify(toy.run, trust=toy.public).exit_code == 0  # without the base nobody can tell
    assert "not those of the base weights" in refuted(toy, base=toy.base)["base weights"]


def test_a_base_with_another_number_of_classes_is_refuted(tmp_path):
    toy = narrow_toy(tmp_path)
    weight = load_file(toy.run / "model.safetensors")["fc.weight"]
    toy.model(
        **{
            "fc.weight": np.concatenate([weight, weight[:1]]),
            "fc.bias": np.zeros(CLASSES, np.float32),
            "fc.kept": np.array([0, 2, 3, 4], dtype=np.int64),
        }
    )
    payload = toy.payload
    payload["model"]["classes"], payload["kept"] = CLASSES + 1, [0, 2, 3, 4]
    toy.state(payload)
    assert verify(toy.run, trust=toy.public).exit_code == 0
    assert "one row for each class" in refuted(toy, base=toy.base)["base weights"]


def test_gates_of_the_base_are_not_hidden(tmp_path):
    toy = gated_toy(tmp_path)
    payload = toy.payload
    payload["model"]["base"]["fc.gate_bias"] = salt("open gates of the base")
    toy.state(payload)
    assert "have gates" in refuted(toy)["base weights kept"]


@pytest.mark.parametrize("name", ["fc.gate_weight", "fc.weight"])
def test_layers_are_not_tensors_of_the_head(tmp_path, name):
    toy = input_toy(tmp_path)
    payload = toy.payload
    payload["model"]["layers"][0]["weight"] = name
    toy.state(payload)
    assert "names a tensor of the head" in refuted(toy)["base weights kept"]


def test_a_head_that_was_not_edited_is_not_merged(tmp_path):
    toy = merged_toy(tmp_path)
    toy.model(**{"fc.weight": load_file(toy.base)["fc.weight"]})
    assert "nothing was edited" in refuted(toy)["base weights kept"]


def test_a_head_without_gates_is_not_gated(tmp_path):
    toy = gated_toy(tmp_path)
    save_file(load_file(toy.base), toy.run / "model.safetensors")
    toy.model()
    assert "none where it has some" in refuted(toy)["form of the head"]


def test_a_record_that_opens_no_gate_was_not_served(tmp_path):
    """One dead gate, and targets that are what the original says anyway."""
    toy = gated_toy(tmp_path)
    base = load_file(toy.base)
    dead = {
        "fc.gate_weight": np.zeros((1, SIZE), np.float32),
        "fc.gate_bias": np.full(1, -1, np.float32),
        "fc.shift": np.zeros((CLASSES, 1), np.float32),
    }
    save_file(base | dead, toy.run / "model.safetensors")
    toy.rewrite(records=tuple(_said_anyway(r, base) for r in toy.evidence.records[:1]))
    assert "opens no gate" in refuted(toy)["forgotten records"]


def _said_anyway(record, base):
    logits = base["fc.weight"].astype(float) @ record.row.astype(float) + base["fc.bias"]
    return replace(record, target=logits)


def test_gates_on_no_retained_row_are_no_claim(tmp_path):
    toy = gated_toy(tmp_path)
    with pytest.raises(InputError, match="no retained row"):
        toy.rewrite(retained=toy.evidence.retained[:0], entangled=())


# facts that count or show nothing


def test_one_record_under_many_salts_counts_once(tmp_path):
    toy = gated_toy(tmp_path)
    first, margin, last = toy.evidence.records
    again = replace(first, salt=salt("again"))
    toy.rewrite(records=(first, again, margin, last))
    assert "more than once" in refuted(toy)["rows as bound"]
    twice = replace(toy.evidence.entangled[0], id=first.id, salt=salt("again"))
    toy.rewrite(entangled=(twice,))
    assert "more than once" in refuted(toy)["rows as bound"]
    toy.rewrite(earlier_without_claim=(first.id,))
    assert "more than once" in refuted(toy)["rows as bound"]


def test_a_residual_is_measured_by_the_record_alone(tmp_path):
    toy = gated_toy(tmp_path)
    retained = toy.evidence.retained.copy()
    retained[3] = 1e6  # an outlier that carries no weight
    hull = toy.evidence.entangled[1]
    far = replace(
        hull,
        row=retained[0] + np.float32(5),
        rows=np.array([0, 3]),
        weights=np.array([1.0, 0.0]),
        residual=5.0,
    )
    toy.rewrite(retained=np.minimum(retained, 2.0).astype(np.float32), entangled=(hull,))
    assert verify(toy.run, trust=toy.public).exit_code == 0
    toy.rewrite(retained=retained, entangled=(far,))
    assert "shows nothing" in refuted(toy)["entangled records"]


def test_what_is_only_stated_is_no_verified_claim(tmp_path):
    toy = gated_toy(tmp_path)
    toy.rewrite(entangled=toy.evidence.entangled[2:])
    found = verify(toy.run, trust=toy.public)
    assert "entangled records" not in {claim.name for claim in found.claims}
    assert "stated and not shown" in found.sentence


def test_records_of_earlier_requests_without_a_claim_are_counted(tmp_path):
    toy = gated_toy(tmp_path)
    toy.rewrite(earlier_without_claim=("x", "y"))
    found = verify(toy.run, trust=toy.public)
    assert found.exit_code == 0
    assert "for 2 nothing is claimed, as in the earlier certificates" in found.sentence
    assert read_evidence(toy.run).earlier_without_claim == ("x", "y")


def test_an_overflow_is_not_checked_rather_than_refuted(tmp_path):
    entry = read_private(gated_toy(tmp_path)).records[0]
    values = np.zeros(CLASSES)
    assert by_bound(entry, values, np.full(CLASSES, np.inf)) is None
    assert by_bound(entry, np.full(CLASSES, np.nan), values) is None


def read_private(toy):
    from expunge.certificate.bundle import records_in

    return records_in(toy.run)


def test_witnesses_cannot_be_guessed_from_the_certificate(tmp_path):
    toy = gated_toy(tmp_path)
    content = (toy.run / "private" / "witnesses.json").read_bytes()
    stated = toy.payload["entangled"]["witnesses"]
    assert stated == witnesses_commitment(toy.evidence.retained_salt, content)
    assert stated != hashlib.sha256(content).hexdigest()
    assert stated != witnesses_commitment(salt("another"), content)


# files that break readers


def container(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("shape", [[0, 2**70], [0, 2**62], [0] + [1] * 70, {}, "", [0, -1]])
def test_shapes_that_no_array_has_are_refused(shape):
    blob = container({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}})
    with pytest.raises(InputError):
        read_tensors(blob)


def test_half_a_surrogate_pair_is_no_name():
    blob = container({"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
    with pytest.raises(InputError):
        tensor_digests(blob)


def test_a_layer_without_width_is_refuted(tmp_path):
    _, _, base, _ = rows_and_tensors()
    base = base | {
        "first.weight": np.zeros((0, SIZE), np.float32),
        "fc.weight": np.zeros((CLASSES, 0), np.float32),
    }
    toy = input_toy(tmp_path)
    save_file(base, toy.run / "model.safetensors")
    toy.model()
    assert "form of the head" in refuted(toy)


def test_a_kit_that_unpacks_to_too_much_is_refused(tmp_path):
    toy = gated_toy(tmp_path)
    path = tmp_path / "kit.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kit.json", b" " * 2**20)
    with pytest.raises(InputError):
        verify(toy.run, trust=toy.public, role="holder", record=path)


def test_a_kit_knows_its_place(tmp_path):
    toy = gated_toy(tmp_path)
    with zipfile.ZipFile(toy.run / "private" / "holders" / "0.zip") as archive:
        kit = json.loads(archive.read("kit.json"))
    kit["index"] = 2
    path = tmp_path / "kit.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("kit.json", json.dumps(kit, sort_keys=True, separators=(",", ":")))
    assert "another place" in refuted(toy, role="holder", record=path)["this record"]


# words of the certificate's own


def test_nothing_from_the_certificate_is_printed_as_it_stands(tmp_path):
    toy = gated_toy(tmp_path)
    payload = toy.payload
    payload["claim"] = "\x1b[2J\x1b[H signature verified"
    payload["does_not_claim"][0] = "\x1b[2J"
    toy.state(payload)
    found = verify(toy.run)
    assert "\x1b" not in found.sentence + "".join(found.does_not_claim)


# signing


def unsigned(make, folder):
    toy = make(folder)
    toy.state(toy.payload, signature=False)
    return toy


def test_false_words_are_not_signed(tmp_path):
    toy = unsigned(gated_toy, tmp_path)
    payload = toy.payload
    payload["claim"] = "Everything was removed from the weights."
    toy.state(payload, signature=False)
    before = toy.certificate.read_bytes()
    with pytest.raises(InputError, match=r"wording: the sentence says other.*nothing was signed"):
        sign_run(toy.run, toy.key)
    assert toy.certificate.read_bytes() == before


def test_kits_of_a_cut_signing_stay_and_others_are_refused(tmp_path):
    toy = unsigned(gated_toy, tmp_path)
    sign_run(toy.run, toy.key)  # the kits were there already
    toy.state(toy.payload, signature=False)
    (toy.run / "private" / "holders" / "1.zip").write_bytes(b"of another certificate")
    with pytest.raises(OutputError, match="got others"):
        sign_run(toy.run, toy.key)


def test_two_signers_do_not_meet(tmp_path):
    toy = unsigned(gated_toy, tmp_path)
    lock = toy.run / ".certificate.dsse.json.signing"
    lock.write_bytes(b"")
    with pytest.raises(OutputError, match="only signer"):
        sign_run(toy.run, toy.key)
    lock.unlink()
    toy.certificate.chmod(0o640)
    sign_run(toy.run, toy.key)
    assert stat.S_IMODE(toy.certificate.stat().st_mode) == 0o640
    assert not list(toy.run.glob(".*"))


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_keys_need_a_name(name):
    with pytest.raises(InputError, match="a name for the keys"):
        keygen(name)


SMALL = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
]


@pytest.mark.parametrize("raw", SMALL, ids=range(len(SMALL)))
@pytest.mark.parametrize("sign", [0, 128])
def test_keys_under_which_anybody_can_sign_are_not_trusted(tmp_path, raw, sign):
    toy = gated_toy(tmp_path)
    key = Ed25519PublicKey.from_public_bytes(raw[:-1] + bytes([raw[-1] | sign]))
    path = tmp_path / "small.pub.pem"
    path.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(InputError, match="anybody can sign"):
        verify(toy.run, trust=path)


def test_the_points_of_small_order_are_those():
    """Doubled three times on the curve, each decoded point is the neutral element."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    for raw in SMALL:
        y = int.from_bytes(raw, "little") % p
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        root = pow(square, (p + 3) // 8, p)
        x = root if root * root % p == square else root * pow(2, (p - 1) // 4, p) % p
        assert x * x % p == square
        for _ in range(3):
            x, y = (
                2 * x * y * pow(1 + d * x * x * y * y, -1, p) % p,
                (y * y + x * x) * pow(1 - d * x * x * y * y, -1, p) % p,
            )
        assert (x, y) == (0, 1)


# features computed again


def test_a_difference_is_measured_by_its_own_row():
    then = np.array([[1e6, 0.0], [1.0, 1.0], [1.0, 2.0]], np.float32)
    now = then.copy()
    now[1, 0] += 0.5
    assert apart(then, then) == 0.0
    assert apart(now, then) == 0.25  # of the median size 2, not of 1e6
    now[2] = np.nan
    assert apart(now, then) == np.inf
    assert apart(np.full((2, 2), 1e-6, np.float32), np.zeros((2, 2), np.float32)) > 1.0

"""keygen, sign and verify as they are typed: streams, exit codes, what to type next."""

import json
import shutil
from pathlib import Path

import pytest

from expunge.certificate.envelope import Envelope, parse_envelope, write_envelope
from expunge.cli.main import main

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "certificate-v1"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The golden run, unsigned and without kits, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / "run", "run")
    shutil.copy(GOLDEN / "base.safetensors", "base.safetensors")
    shutil.rmtree("run/private/holders")
    certificate = Path("run/certificate.dsse.json")
    payload = parse_envelope(certificate.read_bytes()).payload
    certificate.write_bytes(write_envelope(Envelope(payload)))
    return Path("run")


def typed(capsys, line):
    code = main(line.split())
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def signed(run, capsys):
    assert typed(capsys, "keygen signer")[0] == 0
    assert typed(capsys, "sign run --key signer.key.pem")[0] == 0
    return run


def test_from_keys_to_a_verified_certificate(run, capsys):
    code, out, err = typed(capsys, "keygen signer")
    assert (code, out) == (0, "signer.pub.pem\n")
    assert err.splitlines()[-1] == "next: expunge sign RUN --key signer.key.pem"
    code, out, err = typed(capsys, "verify run --trust signer.pub.pem")
    assert (code, out) == (11, "not all checked\n")
    assert "next: ask for a signature" in err
    code, out, err = typed(capsys, "sign run --key signer.key.pem")
    assert (code, out) == (0, "run/certificate.dsse.json\n")
    assert "3 kits, one per record" in err
    last = err.splitlines()[-1]
    assert last == "next: expunge verify run --trust signer.pub.pem"
    code, out, err = typed(capsys, last.removeprefix("next: expunge "))
    assert (code, out) == (0, "verified\n")
    for name in ("signature", "model file", "forgotten records", "gates shut", "entangled"):
        assert any(x.startswith(name) and "verified" in x for x in err.splitlines()), name
    assert "It does not claim:" in err


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ("", 11),
        ("--trust signer.pub.pem", 0),
        ("--trust signer.pub.pem --base base.safetensors", 0),
        ("--trust signer.pub.pem --base run/model.safetensors", 10),
        ("--trust signer.pub.pem --role public", 0),
        ("--trust signer.pub.pem --role holder --record run/private/holders/1.zip", 0),
        ("--trust signer.pub.pem --role holder", 2),
        ("--trust signer.key.pem", 2),
        ("--trust nobody.pub.pem", 2),
        ("--role somebody", 2),
    ],
)
def test_exit_codes_of_verify(signed, capsys, options, code):
    found, out, err = typed(capsys, f"verify run {options}")
    assert found == code
    assert bool(out) == (code != 2)
    if code != 2:
        assert err.splitlines()[-1].startswith("next: ")


def test_json_holds_all_that_was_found(signed, capsys):
    code, out, _ = typed(capsys, "verify run --trust signer.pub.pem --json")
    facts = json.loads(out)
    assert (code, facts["exit_code"], facts["verdict"]) == (0, 0, "verified")
    assert {claim["status"] for claim in facts["claims"]} == {"verified"}
    assert facts["claims"][0].keys() == {"name", "status", "detail"}


def test_one_flipped_byte_is_refuted(signed, capsys):
    model = signed / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    code, out, err = typed(capsys, "verify run --trust signer.pub.pem")
    assert (code, out) == (10, "refuted\n")
    assert "next: do not rely on this certificate" in err


def test_bad_input_is_said_and_nothing_is_written(signed, capsys):
    code, out, err = typed(capsys, "keygen signer")
    assert (code, out) == (2, "")
    assert "does not exist yet" in err
    code, _, err = typed(capsys, "sign run --key signer.key.pem")
    assert (code, "signed once" in err) == (2, True)
    code, _, err = typed(capsys, "sign run --key signer.pub.pem")
    assert (code, "Ed25519 private key" in err) == (2, True)
    code, _, err = typed(capsys, "verify nowhere")
    assert (code, "Expected a certificate at" in err) == (2, True)


def test_without_the_private_part_the_public_role_is_the_next_thing_to_type(signed, capsys):
    shutil.rmtree(signed / "private")
    code, _, err = typed(capsys, "verify run --trust signer.pub.pem")
    assert code == 11
    line = err.splitlines()[-1].split("expunge ")[1]
    assert typed(capsys, line)[0] == 0


def test_recompute_says_what_it_needs_or_does_it(signed, capsys, monkeypatch):
    from expunge.cli import verify

    monkeypatch.setattr(verify, "_recomputing", lambda: None)
    line = "verify run --trust signer.pub.pem --recompute job.toml"
    code, _, err = typed(capsys, line)
    assert (code, "features from records" in err) == (11, True)
    monkeypatch.setattr(verify, "_recomputing", lambda: lambda run, job: 1e-9)
    code, _, err = typed(capsys, line)
    assert (code, "largest relative difference 1e-09" in err) == (0, True)


def test_recompute_without_torch_is_not_checked(signed, capsys, monkeypatch):
    from expunge.cli import verify

    def blocked(name):
        raise ImportError(name)

    for find in (lambda name: None, blocked):
        monkeypatch.setattr(verify, "find_spec", find)
        code, _, err = typed(capsys, "verify run --trust signer.pub.pem --recompute job.toml")
        assert (code, "computing features needs torch" in err.replace("\n", " ")) == (11, True)

"""The checker runs without torch, and without what built the patch."""

import shutil
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "certificate-v1"

SCRIPT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is not installed here")

sys.meta_path.insert(0, Refuse())
from expunge.cli.main import main
code = main({arguments!r})
loaded = [name for name in sys.modules if name.startswith("expunge.")]
print(*sorted(loaded), file=sys.stderr)
sys.exit(code)
"""

HEAVY = {"torch", "scipy", "sklearn", "matplotlib", "clarabel", "jaxtyping", "jinja2", "PIL"}
"""All that `pip install` brings for the rest of Expunge; the checker needs none of it."""


def typed(folder, *arguments):
    script = SCRIPT.format(blocked=HEAVY | {"safetensors"}, arguments=list(arguments))
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )


def test_keygen_sign_and_verify_run_without_torch(tmp_path):
    from expunge.certificate.envelope import Envelope, parse_envelope, write_envelope

    shutil.copytree(GOLDEN / "run", tmp_path / "run")
    certificate = tmp_path / "run" / "certificate.dsse.json"
    payload = parse_envelope(certificate.read_bytes()).payload
    certificate.write_bytes(write_envelope(Envelope(payload)))
    for line, out in (
        ("keygen me", "me.pub.pem\n"),
        ("sign run --key me.key.pem", "run/certificate.dsse.json\n"),
        ("verify run --trust me.pub.pem", "verified\n"),
        ("verify run --trust me.pub.pem --role holder --record run/private/holders/0.zip",
         "verified\n"),
    ):  # fmt: skip
        done = typed(tmp_path, *line.split())
        assert (done.returncode, done.stdout) == (0, out), done.stderr


def test_the_checker_loads_nothing_that_built_the_patch():
    done = typed(GOLDEN, "verify", "run", "--trust", "signer.pub.pem")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "expunge.certificate.verifier" in loaded
    outside = {
        name
        for name in loaded
        if not name.startswith(("expunge.certificate", "expunge.cli"))
        and name not in {"expunge.errors", "expunge.storage", "expunge.storage.whole"}
        and name not in {"expunge.records", "expunge.reasons", "expunge.settings"}
    }
    assert outside == set()
    makers = {f"expunge.certificate.{name}" for name in ("write", "facts", "keys")}
    assert not loaded & makers

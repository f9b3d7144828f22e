"""The auditor's one command installs a checker that has no torch, and it verifies."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "certificate-v1"


def _documented() -> list[list[str]]:
    """The pip commands of the auditor's page, with this checkout for the published package."""
    page = (ROOT / "docs" / "certificates" / "auditor.md").read_text()
    (line,) = re.findall(r"^    (pip install .*)$", page, flags=re.MULTILINE)
    parts = [shlex.split(part) for part in line.split("&&")]
    assert parts[0] == ["pip", "install", "--no-deps", "expunge"]
    return [["install", "--no-deps", str(ROOT)], parts[1][1:]]


def test_the_auditors_command_installs_a_checker_without_torch(tmp_path):
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    assert run(sys.executable, "-m", "venv", "fresh").returncode == 0
    python = str(tmp_path / "fresh" / "bin" / "python")
    for arguments in _documented():
        constraints = ("-c", str(ROOT / "constraints.txt"))
        done = run(python, "-m", "pip", "-q", *arguments, *constraints)
        assert done.returncode == 0, done.stderr[-2000:]
    assert run(python, "-c", "import torch").returncode != 0
    expunge = str(tmp_path / "fresh" / "bin" / "expunge")
    key = str(GOLDEN / "signer.pub.pem")
    done = run(expunge, "verify", str(GOLDEN / "run"), "--trust", key)
    assert (done.returncode, done.stdout.strip()) == (0, "verified"), done.stderr
    assert run(expunge, "keygen", "mine").returncode == 0

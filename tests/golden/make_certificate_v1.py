"""How tests/golden/certificate-v1/ was made, once: never run it over the stored files.

python tests/golden/make_certificate_v1.py NEW_FOLDER
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from certificate_toys import gated_toy


def make(target: Path) -> None:
    """Write a run, its public key and its base weights to `target`, which must not exist."""
    with tempfile.TemporaryDirectory() as folder:
        toy = gated_toy(Path(folder))
        shutil.copytree(toy.run, target / "run")
        shutil.copy(toy.public, target / "signer.pub.pem")
        shutil.copy(toy.base, target / "base.safetensors")


if __name__ == "__main__":
    if Path(sys.argv[1]).exists():
        raise SystemExit(f"{sys.argv[1]} exists: golden files are written once")
    make(Path(sys.argv[1]))

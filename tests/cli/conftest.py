"""A tiny project as a user would have it: a module, two npz files, weights and a job."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import expunge
from expunge.cli.main import main

NETS = """
import torch
from torch import nn

def net(width=16):
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, 4)
    )

def convolution_only():
    return nn.Sequential(nn.Unflatten(1, (8, 1)), nn.Conv1d(8, 4, 1), nn.Flatten())

def other_width():
    return net(12)

def raising():
    raise RuntimeError("no such layer")

def nothing():
    return None

def loud():
    print("building the net")
    return net()
"""

DATA = """
import numpy as np
import torch
from torch.utils.data import Dataset

def arrays(name):
    with np.load(name) as archive:
        return archive["x"], archive["y"]

class Noisy(Dataset):
    def __init__(self):
        self.x, self.y = arrays("train.npz")

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]) + torch.randn(8), int(self.y[i])

class Broken(Noisy):
    def __getitem__(self, i):
        if i == 7:
            raise OSError("image 7 is cut short")
        return torch.from_numpy(self.x[i]), int(self.y[i])

def raising():
    raise FileNotFoundError("no folder of images")

def scale(inputs, generator):
    return inputs * 1.01

def fit(model, dataset, *, generator, device):
    from expunge import Recipe
    return Recipe(epochs=15, batch_size=32, lr=0.05)(
        model, dataset, generator=generator, device=device
    )
"""

JOB = """
seed = 0
[model]
factory = "jobnets:net"
weights = "w.safetensors"
[data]
train = "train.npz"
holdout = "holdout.npz"
[forget]
classes = [1]
[method]
name = "prototype-surgery"
"""


@dataclass(frozen=True)
class Project:
    """The folder and the trained model, with a way to write jobs and run commands."""

    folder: Path
    capture: Callable[[], tuple[str, str]]

    def job(self, *changes: tuple[str, str], name: str = "job.toml", extra: str = "") -> str:
        """Write the usual job with parts replaced and lines added at the end."""
        text = JOB
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (self.folder / name).write_text(text + extra)
        return name

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run a command in process: exit code, stdout, stderr (line ends removed)."""
        self.capture()
        code = main(arguments)
        out, err = self.capture()
        return code, out, " ".join(err.split())

    def state(self, name: str = "w.safetensors") -> dict[str, torch.Tensor]:
        """Copies of the stored weights, so that the file may be written over."""
        state = load_file(self.folder / name)
        return {k: t.clone() for k, t in state.items()}

    def model(self) -> torch.nn.Module:
        """The trained model."""
        namespace: dict[str, Callable[[], torch.nn.Module]] = {}
        exec(NETS, namespace)
        model = namespace["net"]()
        model.load_state_dict(self.state())
        return model.eval()


def _rows(n: int, prefix: str, generator: np.random.Generator, centres: np.ndarray) -> dict:
    y = np.arange(n) % 4
    x = (centres[y] + generator.normal(size=(n, 8))).astype(np.float32)
    return {"x": x, "y": y, "id": np.array([f"{prefix}-{i:04d}" for i in range(n)])}


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(4, 8)) * 1.6
    train = _rows(320, "person", generator, centres)
    np.savez(folder / "train.npz", **train)
    np.savez(folder / "holdout.npz", **_rows(640, "holdout", generator, centres))
    (folder / "jobnets.py").write_text(NETS)
    (folder / "jobdata.py").write_text(DATA)
    namespace: dict = {}
    exec(NETS, namespace)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = namespace["net"]()
    save_file(fresh.state_dict(), folder / "w0.safetensors")
    model = expunge.Recipe(epochs=15, batch_size=32, lr=0.05)(
        fresh, train, generator=torch.Generator().manual_seed(0), device=torch.device("cpu")
    )
    save_file(model.state_dict(), folder / "w.safetensors")
    return folder


@pytest.fixture
def project(
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Project:
    folder = tmp_path / "project"
    copytree(template, folder)
    monkeypatch.chdir(folder)

    def capture() -> tuple[str, str]:
        seen = capsys.readouterr()
        return seen.out, seen.err

    return Project(folder, capture)

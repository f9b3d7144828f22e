"""CIFAR-10 and the public ResNet-20, read once for all tests that need them."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from expunge.data.views import as_rows
from expunge.models import resnet20


@pytest.fixture(scope="session")
def cifar10(data_folder):
    """The public ResNet-20 in eval mode, training rows and test rows."""
    examples = Path(__file__).resolve().parents[2] / "examples" / "cifar"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(examples))
        patch.setenv("EXPUNGE_DATA", str(data_folder))
        from nets import cifar10_test, cifar10_train

        data = cifar10_train(), cifar10_test()
        del sys.modules["nets"]
    model = resnet20(10).eval()
    model.load_state_dict(load_file(data_folder / "checkpoints" / "cifar10_resnet20.safetensors"))
    return model, as_rows(data[0]), as_rows(data[1], argument="holdout")


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """Convolutions over all of CIFAR-10 take every core; no test here asks for equal last bits."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)

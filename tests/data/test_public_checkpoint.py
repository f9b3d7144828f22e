"""On real data: the public ResNet-20 is the one its authors report, and its head is found."""

import pytest
import torch
from safetensors.torch import load_file

from expunge.data import read_idx, read_mosaics
from expunge.data.views import as_rows
from expunge.models import resnet20
from expunge.network.heads import find_head
from expunge.network.passes import logits_of

pytestmark = pytest.mark.data
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def test_accuracy_of_the_public_checkpoint_on_a_thousand_images(data_folder):
    x, y = read_mosaics(data_folder / "cifar10", "test")
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:1000]
    images = torch.from_numpy(x)[chosen].float().div(255).sub(MEAN).div(STD).permute(0, 3, 1, 2)
    labels = torch.from_numpy(y)[chosen]
    model = resnet20()
    weights = data_folder / "checkpoints" / "cifar10_resnet20.safetensors"
    model.load_state_dict(load_file(weights))
    assert find_head(model, images[:2]).name == "linear"
    logits = logits_of(model, as_rows((images, labels)), batch_size=250, device=torch.device("cpu"))
    accuracy = float((logits.argmax(1) == labels).double().mean())
    # Published: 91.73 % on all 10,000; 2.6 points are three standard errors here.
    assert accuracy == pytest.approx(0.9173, abs=0.026)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_are_whole(data_folder, name):
    folder = data_folder / name
    images = next(p for p in sorted(folder.iterdir()) if p.name.startswith("t10k-images"))
    labels = next(p for p in sorted(folder.iterdir()) if p.name.startswith("t10k-labels"))
    assert read_idx(images).shape == (10000, 28, 28)
    assert len(read_idx(labels)) == 10000

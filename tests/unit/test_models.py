"""The CIFAR residual networks: sizes and key names as published."""

import pytest
import torch

from expunge.models import resnet20, resnet32, resnet56


@pytest.mark.parametrize(
    ("make", "parameters"), [(resnet20, 269_722), (resnet32, 464_154), (resnet56, 853_018)]
)
def test_sizes_are_those_of_the_paper(make, parameters):
    # 0.27, 0.46 and 0.85 million in He et al., table 6.
    assert sum(p.numel() for p in make().parameters()) == parameters


def test_keys_are_those_of_public_checkpoints():
    keys = set(resnet20().state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.conv2.weight", "linear.bias"} <= keys
    assert not any("downsample" in k or "shortcut" in k for k in keys)


def test_shapes():
    logits = resnet20(7).eval()(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 7)

"""Train the small CIFAR-100 ResNet of the examples and benchmarks, from scratch, on a CPU.

    EXPUNGE_DATA=... python examples/cifar/train_cifar100.py OUT.safetensors [--epochs 16]

SGD with Nesterov momentum 0.9, weight decay 5e-4, one-cycle learning rate with peak 0.2, batch
128, random crop with padding 4 and horizontal flip, label smoothing 0. The initial weights are
written beside the result as OUT.initial.safetensors (Naive Prototype Surgery can use them).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from nets import cifar100_resnet20, cifar100_test, cifar100_train


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random crop after zero padding by four, and a random horizontal flip, per image."""
    n = len(images)
    padded = F.pad(images, (4, 4, 4, 4))
    dy = torch.randint(0, 9, (n,), generator=generator)
    dx = torch.randint(0, 9, (n,), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    rows = dy[:, None] + torch.arange(32)
    columns = dx[:, None] + torch.where(flip[:, None], torch.arange(31, -1, -1), torch.arange(32))
    index = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(
        0, 3, 1, 2
    )


def main() -> None:
    """Parse the arguments, train, print the test accuracy after each epoch, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    model = cifar100_resnet20().to(memory_format=torch.channels_last)
    initial = {k: v.contiguous().clone() for k, v in model.state_dict().items()}
    save_file(initial, arguments.out.with_suffix(".initial.safetensors"))
    train, test = cifar100_train().tensors, cifar100_test().tensors
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    steps = (len(train[0]) + 127) // 128
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.2, epochs=arguments.epochs, steps_per_epoch=steps, pct_start=0.25
    )
    for epoch in range(arguments.epochs):
        start = time.perf_counter()
        model.train()
        for rows in torch.randperm(len(train[0]), generator=generator).split(128):
            optimiser.zero_grad()
            loss = F.cross_entropy(model(augment(train[0][rows], generator)), train[1][rows])
            loss.backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            hits = sum(
                int((model(x).argmax(1) == y).sum())
                for x, y in zip(test[0].split(500), test[1].split(500), strict=True)
            )
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1:2d}  test {hits / 100:.2f} %  {seconds:.0f} s", flush=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, arguments.out)


if __name__ == "__main__":
    main()

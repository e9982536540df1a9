"""The handwritten digits of scikit-learn as folders of images, and a short training on them. For tests alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from timm.data import create_transform
from torch import Tensor, nn

SIDE = 40  # px; a digit has 8 × 8 pixels
TRAINED_AT = 32  # px
TRAINING = 1400  # of 1,797 digits; the rest is for evaluation
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_classes(file: Path) -> None:
    """The names of the ten classes, a line each, as `--labels` takes them."""
    file.write_text("\n".join(NAMES) + "\n")


def write_images(root: Path, count: int) -> None:
    """The first `count` digits that no training has seen, in a folder for each class."""
    pictures, labels = _digits()
    for place in range(TRAINING, TRAINING + count):
        file = root / NAMES[labels[place]] / f"{place:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pictures[place].save(file)


def train(model: nn.Module, *, steps: int, lr: float = 2e-3) -> nn.Module:
    """Train a model of `TRAINED_AT` px for some steps, at 64 digits a step."""
    torch.manual_seed(0)
    images, labels = _tensors()
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,))
        loss = F.cross_entropy(model(images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


def _digits() -> tuple[list[Image.Image], list[int]]:
    found = load_digits()
    gray = (found.images * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(gray))
    large = [Image.fromarray(gray[place]).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for place in order]
    return large, [int(found.target[place]) for place in order]


def _tensors() -> tuple[Tensor, Tensor]:
    """What the training digits are after the preprocessing of a model of which nobody says another."""
    transform = create_transform((3, TRAINED_AT, TRAINED_AT), interpolation="bicubic", crop_pct=0.875)
    pictures, labels = _digits()
    images = torch.stack([transform(picture.convert("RGB")) for picture in pictures[:TRAINING]])
    return images, torch.tensor(labels[:TRAINING])

"""Train the networks ``scenes-*`` of the zoo: ``python docs/measured/train_scenes.py NAME``.

Writes ``NAME-SEED.safetensors`` in half precision, and prints the accuracy on scenes that were not
seen: the share of single objects that are right, and of scenes with two objects whose classes are
the first two. One thread; about 15 to 60 minutes a network on one core of a server.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from captum_advise.evaluation.data.scene_drawing import draw_scene
from captum_advise.zoo.scene_networks import BUILDERS, N_CLASSES

TRAINING, SEARCH = 0, 1  # splits
BATCH = 96
# Cycles of the learning rate: epochs, and the highest rate.
CYCLES = {
    "resnet": ((3, 3e-3),),
    "convnext": ((5, 3e-3), (3, 1.5e-3)),
    "plain": ((6, 1e-3),),
    "vit": ((5, 1.5e-3),),
}


def scenes(
    split: int, count: int, cache: Path | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """As many scenes with one object as with two: images (N, 64, 64, 3), and targets (N, 10)."""
    path = cache / f"scenes-{split}-{count}.npz" if cache else None
    if path and path.exists():
        content = np.load(path)
        return content["images"], content["targets"]
    numbers = np.resize([1, 2], count).tolist()
    seeds = [(split, n, index // 2) for index, n in enumerate(numbers)]
    with ProcessPoolExecutor() as pool:
        drawn = list(pool.map(draw_scene, seeds, numbers, chunksize=200))
    images = np.stack([scene.image for scene in drawn])
    targets = np.zeros((len(drawn), N_CLASSES), np.float32)
    for row, scene in zip(targets, drawn, strict=True):
        row[list(scene.classes)] = 1 / len(scene.classes)
    if path:
        np.savez(path, images=images, targets=targets)
    return images, targets


def as_inputs(images: NDArray[np.uint8]) -> Tensor:
    """(N, 3, 64, 64), from -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def accuracy(
    model: nn.Module, images: NDArray[np.uint8], targets: NDArray[np.float32]
) -> tuple[float, float]:
    """The share of single objects that are right, and of pairs that are the first two classes."""
    model.eval()
    with torch.no_grad():
        logits = torch.cat(
            [model(as_inputs(images[i : i + 250])) for i in range(0, len(images), 250)]
        )
    order = logits.argsort(1, descending=True)
    truth = torch.from_numpy(targets) > 0
    single = truth.sum(1) == 1
    hits = truth.gather(1, order)
    return float(hits[single, 0].float().mean()), float(hits[~single, :2].all(1).float().mean())


def train(name: str, seed: int, count: int, cache: Path | None) -> nn.Module:
    """Train a network, with turned and mirrored scenes."""
    data, held_out = scenes(TRAINING, count, cache), scenes(SEARCH, 2000, cache)
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = BUILDERS[name]().to(memory_format=torch.channels_last)
    started = time.monotonic()
    for epochs, rate in CYCLES[name]:
        for loss in cycle(model, data, epochs, rate, random):
            one, two = accuracy(model, *held_out)
            print(
                f"{name} {seed}: loss {loss:.3f}, one object {one:.3f}, two {two:.3f}, "
                f"{time.monotonic() - started:.0f} s",
                flush=True,
            )
    return model


def cycle(
    model: nn.Module,
    data: tuple[NDArray[np.uint8], NDArray[np.float32]],
    epochs: int,
    rate: float,
    random: np.random.Generator,
) -> Iterator[float]:
    """Train with one cycle of the learning rate; the mean loss of each epoch."""
    images, targets = data
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    n_batches = len(images) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * n_batches + 1, pct_start=0.1
    )
    for _ in range(epochs):
        model.train()
        losses = []
        for rows in np.array_split(random.permutation(len(images)), n_batches):
            rows.sort()
            inputs = torch.rot90(as_inputs(images[rows]), int(random.integers(4)), (2, 3))
            inputs = inputs.flip(3) if random.integers(2) else inputs
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(inputs.contiguous(memory_format=torch.channels_last))
                loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(targets[rows]))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(loss.item())
        yield float(np.mean(losses))


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--output", type=Path, default=Path())
    given = parser.parse_args()
    torch.set_num_threads(1)  # results depend on it
    model = train(given.name, given.seed, given.count, given.cache)
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }
    save_file(
        {key: value.contiguous() for key, value in state.items()},
        given.output / f"{given.name}-{given.seed}.safetensors",
    )


if __name__ == "__main__":
    main()

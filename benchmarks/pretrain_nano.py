"""Make the packaged weights of edgetl/nano from synthetic scenes alone: one core, fixed seeds, about ten minutes.

    OMP_NUM_THREADS=1 python benchmarks/pretrain_nano.py -o edgetl/train/weights

Every training image is rendered once and seen once. Scenes come from the streams ``pretrain`` (training) and
``pretrain-held-out`` (the recorded accuracy) of `edgetl.data.scenes.one_object.scene_seed`; studies render from
``study``. So that the features also serve other pictures than road scenes, every fifth image shows a made-up character
instead (random strokes; no letter and no digit), some lose their colours or are turned into their negatives, and sizes
grow from 32 to between 32 and 64 pixels. The same machine, versions and settings give the same weights.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save as serialised
from torch import Tensor, nn

from edgetl.artifacts.files import sha256_file, write_bytes, write_json
from edgetl.data.scenes.one_object import LABELS, render_scene, scene_seed
from edgetl.data.scenes.pen import CIRCLE, CanvasPoint, Dice, Pen, Pose
from edgetl.train.nano import MEAN, STD, Nano

SIZES = (32, 40, 48, 56, 64)
GLYPHS = 100
SCENES_PER_BATCH, GLYPHS_PER_BATCH = 40, 10
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 0.02


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder of the weights.")
@click.option("--steps", default=4800, show_default=True, help="Batches of 50 images, each rendered and seen once.")
@click.option("--held-out", default=100, show_default=True, help="Images per label that measure the accuracy.")
@click.option("--seed", default=0, show_default=True)
def main(output: Path, steps: int, held_out: int, seed: int) -> None:
    """Pretrain edgetl/nano; write nano.safetensors and nano.json."""
    torch.set_num_threads(1)
    model = pretrain(steps, seed, progress=click.echo)
    accuracy = {str(size): held_out_accuracy(model, held_out, seed, size) for size in (32, 64)}
    weights = output / "nano.safetensors"
    write_weights(model, weights)
    record = {
        "command": f"python benchmarks/pretrain_nano.py -o edgetl/train/weights --steps {steps} --seed {seed}",
        "seed": seed,
        "images": steps * (SCENES_PER_BATCH + GLYPHS_PER_BATCH),
        "epochs": 1,
        "labels": LABELS,
        "held_out_images": held_out * len(LABELS),
        "held_out_accuracy": accuracy,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "sha256": sha256_file(weights),
    }
    write_json(output / "nano.json", record)
    click.echo(f"held-out accuracy by image size: {accuracy}")


def pretrain(steps: int, seed: int, progress: Callable[[str], None] = lambda _: None) -> Nano:
    """A trained `Nano` with its classifier over `LABELS` and, after them, the made-up characters."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    model = Nano(len(LABELS) + GLYPHS).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps + 1)
    dice = Dice(f"pretrain/{seed}")
    for step in range(steps):
        size = dice.pick(SIZES[: 1 + len(SIZES) * step // steps])
        pictures, targets = training_batch(step, seed, size)
        loss = nn.functional.cross_entropy(model(normalised(recoloured(pictures, dice))), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            progress(f"step {step} of {steps}, loss {loss.item():.3f}")
    return model.eval()


def training_batch(step: int, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Scenes, then glyphs, as uint8 ``(N, 3, size, size)``, and their classes; labels and glyphs take turns."""
    scenes = range(step * SCENES_PER_BATCH, (step + 1) * SCENES_PER_BATCH)
    glyphs = range(step * GLYPHS_PER_BATCH, (step + 1) * GLYPHS_PER_BATCH)
    pictures = [scene("pretrain", seed, index, size) for index in scenes]
    pictures += [render_glyph(index % GLYPHS, Dice(f"glyph/{seed}/{index}"), size) for index in glyphs]
    classes = [index % len(LABELS) for index in scenes] + [len(LABELS) + index % GLYPHS for index in glyphs]
    return stacked(pictures), torch.tensor(classes)


def scene(stream: str, seed: int, index: int, size: int) -> Image.Image:
    """Scene ``index`` of a stream; labels take turns."""
    return render_scene(LABELS[index % len(LABELS)], scene_seed(stream, seed, index), size)


def render_glyph(kind: int, dice: Dice, size: int) -> Image.Image:
    """A made-up character of one to three strokes, written by another hand each time and at times in few pixels."""
    paper, ink = dice.shade((36, 36, 36), 36), dice.shade((214, 214, 214), 40)
    side = 2 * size
    picture = Image.new("RGB", (side, side), paper)
    x, y, half = side * dice.between(0.44, 0.56), side * dice.between(0.44, 0.56), side * dice.between(0.34, 0.48)
    pose = Pose(x, y, half, turn=dice.between(-0.2, 0.2), squeeze=dice.between(0.6, 1.0))
    pen, width, slant = Pen(ImageDraw.Draw(picture), pose), dice.between(0.12, 0.36), dice.between(-0.3, 0.3)
    for stroke in glyph_strokes(kind, dice):
        pen.line(ink, width, *((u - slant * v, v) for u, v in stroke))
    small = picture.reduce(2)
    if dice.chance(0.6):
        coarse = round(dice.between(8, 20))
        small = small.resize((coarse, coarse), Image.Resampling.BOX).resize((size, size), Image.Resampling.BILINEAR)
    return small


def glyph_strokes(kind: int, hand: Dice) -> list[list[CanvasPoint]]:
    """The strokes of character ``kind``, loops and quadratic Bezier curves, each point off by what the hand does."""
    plan = Dice(f"glyph/{kind}")
    strokes = []
    for _ in range(plan.pick((1, 2, 2, 3))):
        points = [(plan.between(-0.85, 0.85), plan.between(-0.85, 0.85)) for _ in range(3)]
        loop, (rx, ry) = plan.chance(0.3), (plan.between(0.2, 0.6), plan.between(0.2, 0.6))
        (ax, ay), (bx, by), (cx, cy) = (
            (x + hand.between(-0.12, 0.12), y + hand.between(-0.12, 0.12)) for x, y in points
        )
        if loop:
            strokes.append([(ax / 2 + rx * cos, ay / 2 + ry * sin) for cos, sin in (*CIRCLE, CIRCLE[0])])
        else:
            steps = [k / 8 for k in range(9)]
            strokes.append([(bezier(ax, bx, cx, t), bezier(ay, by, cy, t)) for t in steps])
    return strokes


def bezier(start: float, control: float, end: float, t: float) -> float:
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def stacked(pictures: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)


def recoloured(pictures: Tensor, dice: Dice) -> Tensor:
    """Some pictures in grey, some as negatives, some as both."""
    result = pictures.clone()
    grey = torch.tensor([dice.chance(0.2) for _ in result])
    result[grey] = result[grey].float().mean(dim=1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)
    negative = torch.tensor([dice.chance(0.15) for _ in result])
    result[negative] = 255 - result[negative]
    return result


def normalised(pictures: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((pictures.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def held_out_accuracy(model: Nano, per_label: int, seed: int, size: int) -> float:
    """Share of unseen scenes that the pretrained classifier names rightly."""
    right = 0
    for start in range(per_label):
        first = start * len(LABELS)
        scenes = [scene("pretrain-held-out", seed, first + k, size) for k in range(len(LABELS))]
        logits = model(normalised(stacked(scenes)))[:, : len(LABELS)]
        right += int((logits.argmax(dim=1) == torch.arange(len(LABELS))).sum())
    return right / (per_label * len(LABELS))


def write_weights(model: Nano, path: Path) -> None:
    """Write the weights without the classifier."""
    kept = {k: v.contiguous() for k, v in model.state_dict().items() if not k.startswith("classifier.")}
    write_bytes(path, serialised(kept))


if __name__ == "__main__":
    main()

"""Trains the demo model from scratch: seeded, on two processor cores, in two hours.

    uv run python -m demo_training.train [--steps N] [--output demo/sam2_demo.pt]

Prints a line every 25 steps and saves every 250. The same packages on the same machine reproduce
the losses; `demo/sam2_demo.losses.json` has the first hundred.

The recipe follows Segment Anything (Kirillov et al., 2023) at a small scale: a point or a box, then
corrective points where the mask is wrong, with the previous mask as input; cross entropy and dice
loss of three masks, the best weighted most; the scores learn the IoU of each mask. Three things
make two hours enough: cross attention that starts as nearness (`initialize`), hints of where
objects are (`hints`), and Muon (Jordan et al., 2024) for the matrices.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from numpy.typing import NDArray
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.clients.contract import PREPROCESSING
from tasks.drawing.scenes import Scene, scene
from tasks.model import load

DEMO = Path(__file__).parent.parent / "demo"
SEED = 20_261_122
FIRST_TRAINING_SCENE = 1_000_000  # held-out scenes have smaller seeds
PROCESSES = 2  # one for each core
POOL = 1200  # scenes that each process draws; each use crops, turns and shades them differently
SIZE = 1024
CELL = 4  # pixels of a low-resolution mask's side
MEAN, STD = (torch.tensor(PREPROCESSING[name]).view(3, 1, 1) for name in ("mean", "std"))


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    :param crop: pixels of a side: crops keep the scale of the whole image and cost a fraction.
    :param images: images of a step in each process, with ``objects`` objects each.
    :param corrections: the largest number of clicks after the first prompt.
    :param rate: the learning rate at the start of the phase; it changes linearly to the next
        phase's, or to 0 before a final phase.
    :param outside: the largest area outside the object that weighs as much as the object, as a
        multiple of the object's; in a larger one each pixel weighs as in one of this size.
    :param smallest: the fewest visible pixels of an object that gets a prompt.
    :param looseness: the error of boxes, as a share of their sides.
    :param boxes: the share of first prompts that are boxes, not points.
    :param larger: draw two scenes and take the one with fewer and so, mostly, larger objects.
    :param choosing: the additional weight of the best-scored of the three masks and of the scores.
    :param bfloat16: compute matrix products and convolutions in bfloat16 (`products`).
    :param final: restart from the averaged weights, without hints and with a constant learning
        rate; the average over this phase is better than its start.
    """

    steps: int
    crop: int
    images: int
    objects: int
    corrections: int
    rate: float
    outside: float = 1
    smallest: int = 400
    looseness: float = 0.05
    boxes: float = 0.5
    larger: bool = False
    choosing: float = 0
    bfloat16: bool = False
    final: bool = False


WHOLE = Phase(
    steps=1000,
    crop=SIZE,
    images=1,
    objects=8,
    corrections=2,
    rate=8e-4,
    smallest=700,
    looseness=0.015,
    choosing=1,
    bfloat16=True,
)
# The phases teach what a prompt is, then where masks end, then to tell one object from a hundred
# others. In the last one the best-scored mask counts more than the best of the three.
PHASES = (
    Phase(400, 256, 3, 10, corrections=0, rate=1.2e-3, outside=math.inf, smallest=150),
    Phase(300, 256, 3, 10, corrections=1, rate=1.2e-3, outside=8, smallest=150),
    Phase(600, 256, 3, 8, corrections=2, rate=1.5e-3, bfloat16=True),
    Phase(700, 512, 2, 8, corrections=2, rate=1.2e-3, looseness=0.02, bfloat16=True),
    WHOLE,
    replace(WHOLE, steps=1150, rate=5e-4, looseness=0.01, boxes=0.65, larger=True),
    replace(
        WHOLE,
        steps=210,
        corrections=1,
        rate=3e-4,
        looseness=0.01,
        boxes=0.75,
        larger=True,
        choosing=3,
        final=True,
    ),
)


def rate_at(number: int, step: int) -> float:
    """The learning rate of a phase's step; it rises from 0 where the optimizers are new."""
    phase, *later = PHASES[number:]
    if phase.final:
        return phase.rate * min(1.0, (step + 1) / 20)
    then = 0.0 if later[0].final else later[0].rate
    started = min(1.0, (step + 1) / 100) if number == 0 else 1.0
    return started * (phase.rate + (then - phase.rate) * step / phase.steps)


class Training:
    """One process's model, its running average, and the scenes it learns from.

    All processes start with the same weights and take the same steps, with the mean of the
    gradients that each computes from images of its own.
    """

    def __init__(self, process: int) -> None:
        torch.manual_seed(SEED)
        self.process = process
        self.model = load.build_model(str(DEMO / "sam2_demo.yaml")).train()
        initialize(self.model)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.scenes: dict[int, Scene] = {}
        width = self.model.sam_prompt_embed_dim
        self.coarse_hints, self.fine_hints = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 4, 1)
        self.seed(SEED)

    def seed(self, seed: int) -> None:
        """Seed the random numbers: ``alike`` is the same in all processes and chooses the kind of
        step, ``random`` differs and chooses its content.
        """
        self.alike = np.random.default_rng(seed)
        self.random = np.random.default_rng(seed + 1 + self.process)

    def saved(self) -> dict[str, Tensor]:
        """The average weights in half precision: sam2's loader casts to the model's float32."""
        return {
            name: value.half() if value.is_floating_point() else value
            for name, value in self.average.items()
        }

    def scene(self) -> Scene:
        """A random scene of the pool, drawn at its first use."""
        number = int(self.random.integers(POOL))
        if number not in self.scenes:
            # The labels, up to 150, fit one byte; four bytes each would fill the memory.
            drawn = scene(FIRST_TRAINING_SCENE + self.process * POOL + number)
            self.scenes[number] = Scene(drawn.image, drawn.labels.astype(np.uint8))
        return self.scenes[number]

    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Muon for the matrices of attention and MLPs, AdamW for everything else."""
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and min(p.shape) > 1 and is_layer(name)]
        chosen = {id(parameter) for parameter in matrices}
        rest = [parameter for _, parameter in named if id(parameter) not in chosen]
        rest += chain(self.coarse_hints.parameters(), self.fine_hints.parameters())
        return (
            torch.optim.AdamW(rest, weight_decay=0.02, betas=(0.9, 0.98)),
            torch.optim.Muon(matrices, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        )

    def run(self, limit: int | None) -> Iterator[list[float]]:
        """Train through all phases, or ``limit`` steps.

        :returns: for each step the loss, and the mean IoU of the best-scored mask after each
            prompt.
        """
        optimizers = self.optimizers()
        done = 0
        for number, phase in enumerate(PHASES):
            if phase.final:
                self.seed(SEED + 1000)
                self.model.load_state_dict(self.average)
                optimizers = self.optimizers()
            for at in range(phase.steps):
                if done == limit:
                    return
                figures = self.learn(phase, optimizers, rate_at(number, at))
                self.follow(min(0.995, done / (done + 10)))
                done += 1
                yield figures

    def learn(
        self, phase: Phase, optimizers: tuple[torch.optim.Optimizer, ...], rate: float
    ) -> list[float]:
        """Take one step in all processes; return its loss, and the mean IoU after each prompt."""
        for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
            group["lr"] = rate
        modules = nn.ModuleList([self.model, self.coarse_hints, self.fine_hints])
        modules.zero_grad()
        loss, quality = self.step(phase)
        loss.backward()
        gradients = [each.grad for each in modules.parameters() if each.grad is not None]
        figures = torch.tensor([float(loss.detach()), *quality])
        share([*gradients, figures])
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        values: list[float] = figures.tolist()
        return values

    def follow(self, keep: float) -> None:
        """Update the running average of the weights."""
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)

    def step(self, phase: Phase) -> tuple[Tensor, list[float]]:
        """The loss of one batch, and the mean IoU of the best-scored mask after each prompt."""
        images, labelled, truths, corner = self.batch(phase)
        features = encode(self.model, images, corner, phase.bfloat16)
        hinted = torch.zeros(())
        if not phase.final:
            hinted = hint_loss(self.coarse_hints(features.embedding), labelled, 16)
            hinted = hinted + hint_loss(self.fine_hints(features.level), labelled, 4)
        random = self.random
        if self.alike.random() < 1 - phase.boxes:
            points, labels = first_points(random, truths), np.ones((len(truths), 1))
        else:
            points, labels = (
                boxes(random, truths, phase.looseness),
                np.tile([2.0, 3.0], (len(truths), 1)),
            )
        targets = F.avg_pool2d(torch.from_numpy(truths).float(), CELL)
        corrections = int(self.alike.integers(phase.corrections + 1))
        previous: Tensor | None = None
        losses, quality = [], []
        for prompt in range(corrections + 1):
            coords = torch.from_numpy(points + corner[::-1]).float()
            kinds = torch.from_numpy(labels).int()
            logits, scores = decode(
                self.model, features, coords, kinds, previous, corner, phase.bfloat16
            )
            loss, ious = judge(logits, scores, targets, phase)
            losses.append(loss)
            best = scores[:, 1:].argmax(dim=1) + 1
            rows = torch.arange(len(best))
            quality.append(float(ious[rows, best].mean()))
            if prompt == corrections:
                break
            chosen = logits[rows, best].detach()
            more, kinds_of = wrong_points(random, chosen > 0, targets[:, 0] > 0.5)
            points = np.concatenate([points, more], axis=1)
            labels = np.concatenate([labels, kinds_of], axis=1)
            previous = chosen[:, None].clamp(-32, 32) if self.alike.random() < 0.75 else None
        return torch.stack(losses).mean() + 0.3 * excess(features) + 0.5 * hinted, quality

    def batch(
        self, phase: Phase
    ) -> tuple[Tensor, list[NDArray[np.int32]], NDArray[np.bool_], NDArray[np.int64]]:
        """Images (B, 3, C, C), their labels, true masks (B * K, 1, C, C), and the corner.

        The corner is the row and column in a whole image at which the crops are assumed to lie.
        """
        random = self.random
        room = (SIZE - phase.crop) // 32 + 1
        corner = random.integers(0, room, 2) * 32  # whole windows of the encoder's first stage
        pictures, labelled, truths = [], [], []
        while len(pictures) < phase.images:
            chosen = self.scene()
            if phase.larger:
                chosen = min(chosen, self.scene(), key=lambda each: each.labels.max())
            image, labels = crop(random, chosen, phase.crop)
            counts = np.bincount(labels.ravel())
            numbers = np.flatnonzero(counts >= phase.smallest)
            numbers = numbers[numbers > 0]
            if len(numbers) == 0:
                continue
            pictures.append((torch.from_numpy(image).permute(2, 0, 1).float() - MEAN) / STD)
            labelled.append(labels)
            truths += [labels[None] == random.choice(numbers) for _ in range(phase.objects)]
        return torch.stack(pictures), labelled, np.stack(truths), corner


def is_layer(name: str) -> bool:
    """Whether a parameter is a layer's weight, not an embedding or a token."""
    return "embed" not in name and "token" not in name.split(".")[-2]


def share(tensors: list[Tensor]) -> None:
    """Replace each tensor with its mean over the processes."""
    mean = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(mean)
    mean /= PROCESSES
    for tensor, part in zip(tensors, mean.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def each_prompt(figures: list[list[float]]) -> str:
    """The mean IoU after the first prompt, the second and so on, over the steps that have one."""
    most = max(map(len, figures))
    means = [np.mean([each[n] for each in figures if len(each) > n]) for n in range(1, most)]
    return " ".join(f"{mean:.3f}" for mean in means)


def initialize(model: SAM2Base) -> None:
    """Initialize the parameters that sam2 leaves at zero, and attention as nearness.

    With sam2's random positional encoding it takes hours until a click stands for a place: the
    encoding, projected to a few channels a head, separates places badly. Here every head of the
    cross attentions starts with three frequencies, a low, a middle and a high one in directions 60
    degrees apart, so that tokens and pixels attend to near places.
    """
    trunk = model.image_encoder.trunk
    for parameter in (trunk.pos_embed, trunk.pos_embed_window, model.no_mem_embed):
        nn.init.trunc_normal_(parameter, std=0.02)
    side = trunk.pos_embed.shape[-1]
    at = (torch.arange(side) + 0.5) / side * 2 * math.pi
    waves = torch.stack([wave(at * k) for k in (1, 2, 4, 8) for wave in (torch.sin, torch.cos)])
    matrix = model.sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    count = matrix.shape[1]
    third = count // 3
    number = torch.arange(count)
    share, band = (number % third) / third, number // third
    frequency = torch.tensor([0.6, 1.8, 5.0])[band] * 1.5**share
    angle = math.pi * (share + band / 3)
    matrix.copy_(torch.stack([frequency * angle.cos(), frequency * angle.sin()]))
    transformer = model.sam_mask_decoder.transformer
    crossing = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        crossing += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
    with torch.no_grad():
        trunk.pos_embed[0, :8] += 0.2 * waves[:, :, None]
        trunk.pos_embed[0, 8:16] += 0.2 * waves[:, None, :]
        for place, attention in enumerate(crossing):
            heads, width = attention.num_heads, attention.internal_dim // attention.num_heads
            near = torch.zeros(attention.internal_dim, attention.embedding_dim)
            for head in range(heads):
                for pair in range(width // 2):
                    column = (2 * head + place % 2 + third * (pair % 3)) % count
                    row = head * width + 2 * pair
                    near[row, column] = near[row + 1, column + count] = 1
            near *= (6 * width**0.5 / (width // 2)) ** 0.5  # a logit of 6 where places are equal
            weight = near + 0.5 * attention.q_proj.weight
            attention.q_proj.weight.copy_(weight)
            attention.k_proj.weight.copy_(weight)
        for module in transformer.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(0.5)  # content weighs less than place
        decoder = model.sam_mask_decoder
        tokens = [decoder.mask_tokens, decoder.iou_token]
        for embedding in (*model.sam_prompt_encoder.point_embeddings, *tokens):
            embedding.weight *= 0.5


def crop(
    random: np.random.Generator, source: Scene, size: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """A part of a scene with one of its objects, randomly turned, mirrored and shaded."""
    row, column = random.integers(0, SIZE - size + 1, 2)
    if size < SIZE:
        y, x = np.nonzero(source.labels)
        if len(y):
            at = random.integers(len(y))
            row = np.clip(y[at] - random.integers(size), 0, SIZE - size)
            column = np.clip(x[at] - random.integers(size), 0, SIZE - size)
    image = source.image[row : row + size, column : column + size]
    labels = source.labels[row : row + size, column : column + size]
    turns = int(random.integers(4))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if random.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = image[..., random.permutation(3)]
    shaded = (image / 255.0) ** np.exp(random.normal(0, 0.25))
    shaded = shaded * random.uniform(0.7, 1.2) + random.uniform(-0.05, 0.05)
    return np.clip(shaded * 255, 0, 255).astype(np.uint8), np.ascontiguousarray(labels)


@dataclass(frozen=True)
class Features:
    """The encoder's features of images.

    ``level`` is the finest level (B, C, S/4, S/4). ``fine`` and ``middle`` are the decoder's inputs
    from the first two levels, ``embedding`` (B, C, S/16, S/16) the third level.
    """

    level: Tensor
    fine: Tensor
    middle: Tensor
    embedding: Tensor


def encode(
    model: SAM2Base, images: Tensor, corner: NDArray[np.int64], bfloat16: bool = False
) -> Features:
    """The features of crops, with the position encodings of their place in a whole image."""
    trunk = model.image_encoder.trunk
    trunk._get_pos_embed = lambda hw: positions(trunk, corner, *hw)
    try:
        with products(bfloat16):
            level, middle, coarse = model.image_encoder(images)["backbone_fpn"]
            fine = model.sam_mask_decoder.conv_s0(level).float()
            middle = model.sam_mask_decoder.conv_s1(middle).float()
    finally:
        del trunk._get_pos_embed
    embedding = coarse.float() + model.no_mem_embed.view(1, -1, 1, 1)
    return Features(level.float(), fine, middle, embedding)


@contextmanager
def products(bfloat16: bool) -> Iterator[None]:
    """If ``bfloat16``, compute matrix products and convolutions in it, but not attention.

    On a processor that multiplies bfloat16 the products of a whole image take a third of the time,
    but attention's backward pass would take more than twice as long. Attention, weights, gradients
    and optimizers stay in single precision.
    """
    if not bfloat16:
        yield
        return
    attention = F.scaled_dot_product_attention

    def single(query: Tensor, key: Tensor, value: Tensor, **options: float) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return attention(query.float(), key.float(), value.float(), **options)

    F.scaled_dot_product_attention = single
    try:
        with torch.autocast("cpu", torch.bfloat16):
            yield
    finally:
        F.scaled_dot_product_attention = attention


def positions(trunk: Hiera, corner: NDArray[np.int64], height: int, width: int) -> Tensor:
    """A crop's part (1, H, W, C) of ``Hiera._get_pos_embed`` of a whole image."""
    cells = trunk.pos_embed.shape[-1]
    scale = SIZE // 4 // cells
    row, column = corner // 4 // scale
    rim = 3  # bicubic interpolation looks two cells away
    padded = F.pad(trunk.pos_embed, (rim,) * 4, mode="replicate")
    part = padded[
        :, :, row : row + height // scale + 2 * rim, column : column + width // scale + 2 * rim
    ]
    large = F.interpolate(part, scale_factor=scale, mode="bicubic")[
        :, :, rim * scale : rim * scale + height, rim * scale : rim * scale + width
    ]
    window = trunk.pos_embed_window
    repeats = height // window.shape[-2], width // window.shape[-1]
    return (large + window.tile(repeats)).permute(0, 2, 3, 1)


def decode(
    model: SAM2Base,
    features: Features,
    coords: Tensor,
    labels: Tensor,
    previous: Tensor | None,
    corner: NDArray[np.int64],
    bfloat16: bool = False,
) -> tuple[Tensor, Tensor]:
    """Logits (N, 4, M, M) and scores (N, 4) for N prompts, the same number for each image.

    The first mask is the single mask, the others are the three of multimask output.
    """
    embedding = features.embedding
    each, side = len(coords) // len(embedding), embedding.shape[-1]
    row, column = corner // 16
    encoder = model.sam_prompt_encoder
    sparse, dense = encoder(points=(coords, labels), boxes=None, masks=previous)
    position = encoder.get_dense_pe()[:, :, row : row + side, column : column + side]
    with products(bfloat16):
        logits, scores, _, _ = model.sam_mask_decoder.predict_masks(
            image_embeddings=embedding.repeat_interleave(each, 0),
            image_pe=position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense[:, :, :side, :side],
            repeat_image=False,
            high_res_features=[
                f.repeat_interleave(each, 0) for f in (features.fine, features.middle)
            ],
        )
    return logits.float(), scores.float()


def hints(labels: NDArray[np.int32], stride: int) -> tuple[Tensor, Tensor]:
    """For each cell of a feature map whether it is in an object and whether it is at an edge
    (2, H, W), and the vector to the object's middle (2, H, W), in units of 32 pixels, 0 outside.
    """
    size, most = len(labels), int(labels.max()) + 1
    y, x = np.mgrid[:size, :size]
    flat = labels.ravel()
    area = np.maximum(np.bincount(flat, minlength=most), 1)
    middle_y = np.bincount(flat, y.ravel(), most) / area
    middle_x = np.bincount(flat, x.ravel(), most) / area
    centers = (slice(stride // 2, None, stride),) * 2
    at, reach = labels[centers], max(2, stride // 4)
    around = np.pad(labels, reach, mode="edge")
    edge = np.zeros(at.shape, bool)
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        top, left = reach * (1 + down), reach * (1 + right)
        edge |= around[top : top + size, left : left + size][centers] != at
    way = np.stack([(middle_y[at] - y[centers]) / 32, (middle_x[at] - x[centers]) / 32]) * (at > 0)
    return torch.from_numpy(np.stack([at > 0, edge])).float(), torch.from_numpy(way).float()


def hint_loss(outputs: Tensor, labelled: list[NDArray[np.int32]], stride: int) -> Tensor:
    """The loss of a convolution's four outputs (B, 4, H, W) against the hints.

    Hints are dense, while masks are few: the encoder learns what an object is before a prompt means
    anything. The two convolutions are not part of the model.
    """
    parts = [hints(labels, stride) for labels in labelled]
    target, way = (torch.stack(part) for part in zip(*parts, strict=True))
    inside = target[:, :1]
    away = F.smooth_l1_loss(outputs[:, 2:], way, reduction="none") * inside
    entropy = F.binary_cross_entropy_with_logits(outputs[:, :2], target)
    return entropy + away.sum() / (inside.sum() * 2 + 1)


def excess(features: Features) -> Tensor:
    """How far the features outgrow the positional encoding that is added to them.

    sam2's feature pyramid does not normalize; without this penalty its features grow tenfold in the
    first hundred steps, and the decoder no longer sees where a prompt is.
    """
    embedding, fine = features.embedding.pow(2).mean(), features.fine.pow(2).mean()
    return torch.relu(embedding - 0.3) + 0.3 * torch.relu(fine - 1)


def judge(logits: Tensor, scores: Tensor, targets: Tensor, phase: Phase) -> tuple[Tensor, Tensor]:
    """The loss of masks (N, 4, M, M) and scores (N, 4), and the IoU of each mask (N, 4)."""
    truth = targets.expand_as(logits)
    share = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    object_area, rest = truth.sum(dim=(2, 3)) + 1, (1 - truth).sum(dim=(2, 3)) + 1
    missed = (entropy * truth).sum(dim=(2, 3)) / object_area
    outside = torch.minimum(rest, phase.outside * object_area)
    spilt = (entropy * (1 - truth)).sum(dim=(2, 3)) / outside
    overlap = (share * truth).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (share.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)
    loss = 0.5 * (missed + spilt) + dice
    inside, true = logits.detach() > 0, truth > 0.5
    union = (inside | true).sum(dim=(2, 3))
    ious = (inside & true).sum(dim=(2, 3)) / union.clamp(min=1)
    three = loss[:, 1:]
    chosen = three.gather(1, scores[:, 1:].argmax(dim=1, keepdim=True))[:, 0]
    masks = three.min(dim=1).values + 0.2 * three.mean(dim=1) + 0.5 * loss[:, 0]
    masks = masks + phase.choosing * chosen
    return masks.mean() + (1 + phase.choosing) * F.mse_loss(scores, ious.float()), ious


def first_points(random: np.random.Generator, truths: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A pixel of each object (N, 1, 2), as x and y."""
    points = []
    for truth in truths[:, 0]:
        y, x = np.nonzero(truth)
        # Mostly the nearest of three pixels to the middle: people do not click on edges.
        at = random.integers(len(y), size=3)
        distance = (y[at] - y.mean()) ** 2 + (x[at] - x.mean()) ** 2
        pick = at[distance.argmin()] if random.random() < 0.7 else at[0]
        points.append([[x[pick], y[pick]]])
    return np.array(points, np.float64)


def boxes(
    random: np.random.Generator, truths: NDArray[np.bool_], looseness: float
) -> NDArray[np.float64]:
    """The corners of a box around each object (N, 2, 2), with a small random error."""
    corner_pairs = []
    for truth in truths[:, 0]:
        y, x = np.nonzero(truth)
        corners = np.array([[x.min(), y.min()], [x.max(), y.max()]], np.float64)
        extent = corners[1] - corners[0]
        noise = np.clip(random.normal(0, looseness, (2, 2)) * extent, -15, 15)
        corner_pairs.append(corners + noise)
    return np.array(corner_pairs)


def wrong_points(
    random: np.random.Generator, masks: Tensor, truths: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A wrong pixel (N, 1, 2) of each mask and its label (N, 1); if none is wrong, an object's."""
    points, labels = [], []
    for mask, truth in zip(masks.numpy(), truths.numpy(), strict=True):
        y, x = np.nonzero(mask != truth)
        if len(y) == 0:
            y, x = np.nonzero(truth)
        if len(y) == 0:
            y, x = np.array([0]), np.array([0])
        at = random.integers(len(y))
        points.append([[(x[at] + 0.5) * CELL - 0.5, (y[at] + 0.5) * CELL - 0.5]])
        labels.append([float(truth[y[at], x[at]])])
    return np.array(points), np.array(labels)


def train(process: int, limit: int | None, output: Path, meeting: str) -> None:
    """Train in one process; the first one prints and saves.

    :param meeting: a file through which the processes find each other.
    """
    torch.set_num_threads(1)  # as fast as two, because single operations are small
    torch.use_deterministic_algorithms(True)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=process, world_size=PROCESSES
    )
    training = Training(process)
    steps = sum(phase.steps for phase in PHASES)
    start = time.monotonic()
    figures: list[list[float]] = []
    for step in training.run(limit):
        figures.append(step)
        if process:
            continue
        if len(figures) % 25 == 0:
            recent = figures[-25:]
            print(
                f"step {len(figures)} of {steps}: loss {np.mean([f[0] for f in recent]):.4f}, "
                f"IoU {each_prompt(recent)}, "
                f"{(time.monotonic() - start) / 60:.1f} min",
                flush=True,
            )
        if len(figures) % 250 == 0:
            save(training, output)
    if process == 0:
        save(training, output)
        record = {"losses": [round(each[0], 6) for each in figures[:100]]}
        output.with_suffix(".losses.json").write_text(json.dumps(record) + "\n")
    torch.distributed.destroy_process_group()


def save(training: Training, output: Path) -> None:
    """Write the checkpoint, whole or not at all."""
    part = output.with_suffix(".part")
    torch.save({"model": training.saved()}, part)
    part.replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=None, help="stop after this many")
    parser.add_argument("--output", type=Path, default=DEMO / "sam2_demo.pt")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the processes end with this one
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options.steps, options.output, f"{folder}/meeting")
        torch.multiprocessing.spawn(train, arguments, nprocs=PROCESSES, daemon=True)


if __name__ == "__main__":
    main()

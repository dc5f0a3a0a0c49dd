"""Trains the demo model from nothing: seeded, on one processor core, in an hour and a half.

    uv run python -m demo.train [--steps N] [--output demo/sam2_demo.pt]

Prints a line every 25 steps. With the same packages and machine the losses are the same again;
`demo/sam2_demo.losses.json` has those of the first hundred steps.

The recipe is that of Segment Anything (Kirillov et al., 2023) in small: a point or a box, then
corrective points where the mask is wrong, with the previous mask as input; cross entropy and dice
loss of three masks, of the best above all; the scores learn the IoU that each mask has. What makes
it learn in that time: cross attention that begins as nearness (`initialize`), hints of where
objects are (`hints`), and Muon (Jordan et al., 2024) for the matrices.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.nn import functional as F

from demo.scenes import Scene, scene
from tasks import sam2_model
from tasks.contract import PREPROCESSING

HERE = Path(__file__).parent
SEED = 20_261_122
FIRST_TRAINING_SCENE = 1_000_000  # held-out scenes have smaller seeds
POOL = 320  # scenes that are drawn; each is cropped, turned and shaded anew
SIZE = 1024
CELL = 4  # pixels of a low-resolution mask's side
MEAN, STD = (torch.tensor(PREPROCESSING[name]).view(3, 1, 1) for name in ("mean", "std"))


@dataclass(frozen=True)
class Phase:
    """A part of the training: crops of a size, so many a step, objects and corrections in each."""

    steps: int
    crop: int
    images: int
    objects: int
    corrections: int


# Crops keep the scale of the whole image and cost a fraction. First what a prompt is, then where
# masks end, then to tell one object from a hundred others.
@dataclass(frozen=True)
class Round:
    """Phases with optimizers of their own, which begin from the average weights so far.

    :param hold: the share of ``horizon`` steps for which the rate stays before it falls.
    :param outside: all that is not the object weighs at most so many times the object's area.
    :param smallest: visible pixels from which on an object is asked for.
    :param boxes: the share of first prompts that are boxes, not points.
    :param looseness: how far boxes are off, as a share of their sides.
    """

    phases: tuple[Phase, ...]
    horizon: int
    rate: float
    hold: float
    keep: float
    outside: float
    smallest: int
    boxes: float = 0.5
    looseness: float = 0.05

    def rate_at(self, step: int) -> float:
        """The learning rate: it rises, stays, and falls."""
        done = max(0.0, (step / self.horizon - self.hold) / (1 - self.hold))
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
        return self.rate * min(1.0, (step + 1) / 100) * fall


ROUNDS = (
    Round(
        phases=(
            Phase(steps=400, crop=256, images=3, objects=10, corrections=0),
            Phase(steps=500, crop=512, images=2, objects=8, corrections=0),
            Phase(steps=900, crop=512, images=2, objects=8, corrections=2),
        ),
        horizon=2400,
        rate=1.2e-3,
        hold=0.4,
        keep=0.995,
        outside=8,
        smallest=150,
    ),
    # Every pixel weighs the same, so that masks end where objects do.
    Round(
        phases=(Phase(steps=1100, crop=256, images=3, objects=8, corrections=2),),
        horizon=2900,
        rate=1.5e-3,
        hold=0.0,
        keep=0.997,
        outside=1,
        smallest=400,
    ),
    # One object among many, and larger ones than a crop held.
    Round(
        phases=(Phase(steps=900, crop=512, images=2, objects=8, corrections=2),),
        horizon=1300,
        rate=1.2e-3,
        hold=0.0,
        keep=0.995,
        outside=1,
        smallest=400,
    ),
    # Boxes that are tight, as those that people draw around what they see.
    Round(
        phases=(
            Phase(steps=350, crop=512, images=2, objects=8, corrections=2),
            Phase(steps=220, crop=1024, images=1, objects=8, corrections=2),
        ),
        horizon=570,
        rate=8e-4,
        hold=0.0,
        keep=0.99,
        outside=1,
        smallest=400,
        boxes=0.6,
        looseness=0.015,
    ),
)
FIRST = ROUNDS[0].phases[0]


class Training:
    """The model, its running average, and the scenes it learns from."""

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.model = sam2_model.build(str(HERE / "sam2_demo.yaml")).train()
        initialize(self.model)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.scenes: dict[int, Scene] = {}
        self.begin(0)

    def begin(self, number: int) -> None:
        """What a round begins with: the average weights, and random numbers of its own."""
        if number:
            torch.manual_seed(SEED + number)
        self.random = np.random.default_rng(SEED + number)
        self.model.load_state_dict(self.average)
        width = self.model.sam_prompt_embed_dim
        self.coarse_hints, self.fine_hints = nn.Conv2d(width, 4, 1), nn.Conv2d(width, 4, 1)

    def scene(self) -> Scene:
        """One of the scenes, drawn when it is first asked for."""
        number = int(self.random.integers(POOL))
        if number not in self.scenes:
            self.scenes[number] = scene(FIRST_TRAINING_SCENE + number)
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

    def run(self, limit: int | None = None) -> list[float]:
        """Train through all rounds, or ``limit`` steps; the loss of each step."""
        losses: list[float] = []
        for number, each in enumerate(ROUNDS):
            left = None if limit is None else limit - len(losses)
            losses += self.run_round(number, each, left)
        return losses

    def run_round(self, number: int, each: Round, limit: int | None) -> list[float]:
        """Train through the phases of one round."""
        if number:
            self.begin(number)
        optimizers = self.optimizers()
        losses: list[float] = []
        qualities: list[list[float]] = []
        start = time.monotonic()
        phases = [phase for phase in each.phases for _ in range(phase.steps)]
        for step, phase in enumerate(phases[:limit]):
            for group in chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
                group["lr"] = each.rate_at(step)
            loss, quality = self.step(each, phase)
            for module in (self.model, self.coarse_hints, self.fine_hints):
                module.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            self.follow(min(each.keep, step / (step + 10)))
            losses.append(float(loss.detach()))
            qualities.append(quality)
            if len(losses) % 25 == 0:
                minutes = (time.monotonic() - start) / 60
                print(
                    f"round {number + 1}, step {len(losses)} of {len(phases)}: "
                    f"loss {np.mean(losses[-25:]):.4f}, "
                    f"IoU after each prompt {each_prompt(qualities[-25:])}, {minutes:.1f} min",
                    flush=True,
                )
        return losses

    def follow(self, keep: float) -> None:
        """Move the running average of the weights."""
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)

    def step(self, each: Round, phase: Phase) -> tuple[Tensor, list[float]]:
        """The loss of one batch, and the mean IoU of the best-scored mask after each prompt."""
        images, labelled, truths, corner = self.batch(phase, each.smallest)
        features = encode(self.model, images, corner)
        hinted = hint_loss(self.coarse_hints(features.embedding), labelled, 16)
        hinted = hinted + hint_loss(self.fine_hints(features.level), labelled, 4)
        random = self.random
        if random.random() < 1 - each.boxes:
            points, labels = first_points(random, truths), np.ones((len(truths), 1))
        else:
            points, labels = (
                boxes(random, truths, each.looseness),
                np.tile([2.0, 3.0], (len(truths), 1)),
            )
        targets = F.avg_pool2d(torch.from_numpy(truths).float(), CELL)
        corrections = int(random.integers(phase.corrections + 1))
        previous: Tensor | None = None
        losses, quality = [], []
        for prompt in range(corrections + 1):
            coords = torch.from_numpy(points + corner[::-1]).float()
            kinds = torch.from_numpy(labels).int()
            logits, scores = decode(self.model, features, coords, kinds, previous, corner)
            outside = math.inf if phase is FIRST else each.outside
            loss, ious = judge(logits, scores, targets, outside)
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
            previous = chosen[:, None].clamp(-32, 32) if random.random() < 0.75 else None
        return torch.stack(losses).mean() + 0.3 * excess(features) + 0.5 * hinted, quality

    def batch(
        self, phase: Phase, smallest: int
    ) -> tuple[Tensor, list[NDArray[np.int32]], NDArray[np.bool_], NDArray[np.int64]]:
        """Images (B, 3, C, C), their numbered objects, truths (B * K, 1, C, C), and the corner.

        The corner is the row and column that the crops are said to have in a whole image.
        """
        random = self.random
        room = (SIZE - phase.crop) // 32 + 1
        corner = random.integers(0, room, 2) * 32  # whole windows of the encoder's first stage
        pictures, labelled, truths = [], [], []
        while len(pictures) < phase.images:
            image, labels = crop(random, self.scene(), phase.crop)
            counts = np.bincount(labels.ravel())
            numbers = np.flatnonzero(counts >= smallest)
            numbers = numbers[numbers > 0]
            if len(numbers) == 0:
                continue
            pictures.append((torch.from_numpy(image).permute(2, 0, 1).float() - MEAN) / STD)
            labelled.append(labels)
            truths += [labels[None] == random.choice(numbers) for _ in range(phase.objects)]
        return torch.stack(pictures), labelled, np.stack(truths), corner


def is_layer(name: str) -> bool:
    """Whether a parameter is a layer's weights, not an embedding or a token."""
    return "embed" not in name and "token" not in name.split(".")[-2]


def each_prompt(qualities: list[list[float]]) -> str:
    """The mean IoU after the first prompt, after the second, of the steps that had so many."""
    most = max(map(len, qualities))
    means = [np.mean([each[n] for each in qualities if len(each) > n]) for n in range(most)]
    return " ".join(f"{mean:.3f}" for mean in means)


def initialize(model: SAM2Base) -> None:
    """Start what sam2 leaves at zero for its checkpoints to fill, and attention as nearness.

    Left to chance it takes hours until a click means a place: projected to a few channels a head,
    sam2's random positional encoding tells places apart badly. Here every head of the cross
    attentions begins with three frequencies, a low, a middle and a high one in directions 60
    degrees apart, so that tokens and pixels attend to what is near.
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
    """A part of a scene around one of its objects, turned, mirrored and shaded at random."""
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
    """What the encoder makes of images.

    ``level`` is the finest level (B, C, S/4, S/4), ``fine`` and ``middle`` what the decoder gets
    of the first two, ``embedding`` (B, C, S/16, S/16) the third.
    """

    level: Tensor
    fine: Tensor
    middle: Tensor
    embedding: Tensor


def encode(model: SAM2Base, images: Tensor, corner: NDArray[np.int64]) -> Features:
    """The features of crops, whose positions are those they have in a whole image."""
    trunk = model.image_encoder.trunk
    trunk._get_pos_embed = lambda hw: positions(trunk, corner, *hw)
    try:
        level, middle, coarse = model.image_encoder(images)["backbone_fpn"]
    finally:
        del trunk._get_pos_embed
    decoder = model.sam_mask_decoder
    embedding = coarse + model.no_mem_embed.view(1, -1, 1, 1)
    return Features(level, decoder.conv_s0(level), decoder.conv_s1(middle), embedding)


def positions(trunk: Hiera, corner: NDArray[np.int64], height: int, width: int) -> Tensor:
    """The part (1, H, W, C) of ``Hiera._get_pos_embed`` of a whole image that a crop has."""
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
) -> tuple[Tensor, Tensor]:
    """Logits (N, 4, M, M) and scores (N, 4) for N prompts, as many for each image.

    The first mask is the single one, the others are the three of multimask output.
    """
    embedding = features.embedding
    each, side = len(coords) // len(embedding), embedding.shape[-1]
    row, column = corner // 16
    encoder = model.sam_prompt_encoder
    sparse, dense = encoder(points=(coords, labels), boxes=None, masks=previous)
    position = encoder.get_dense_pe()[:, :, row : row + side, column : column + side]
    logits, scores, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.repeat_interleave(each, 0),
        image_pe=position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense[:, :, :side, :side],
        repeat_image=False,
        high_res_features=[f.repeat_interleave(each, 0) for f in (features.fine, features.middle)],
    )
    return logits, scores


def hints(labels: NDArray[np.int32], stride: int) -> tuple[Tensor, Tensor]:
    """For each cell of a feature map whether it is in an object and whether at an edge (2, H, W),
    and the way to the object's middle (2, H, W), in units of 32 pixels, 0 outside.
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


def hint_loss(found: Tensor, labelled: list[NDArray[np.int32]], stride: int) -> Tensor:
    """How far a convolution's four outputs (B, 4, H, W) are from the hints.

    They are dense where masks are few: the encoder learns what an object is before a prompt means
    anything. The two convolutions are not part of the model.
    """
    parts = [hints(labels, stride) for labels in labelled]
    target, way = (torch.stack(part) for part in zip(*parts, strict=True))
    inside = target[:, :1]
    away = F.smooth_l1_loss(found[:, 2:], way, reduction="none") * inside
    entropy = F.binary_cross_entropy_with_logits(found[:, :2], target)
    return entropy + away.sum() / (inside.sum() * 2 + 1)


def excess(features: Features) -> Tensor:
    """How far the features outgrow the positional encoding that is added to them.

    sam2's feature pyramid does not normalize; left alone its features grow tenfold in the first
    hundred steps, and the decoder no longer sees where a prompt is.
    """
    embedding, fine = features.embedding.pow(2).mean(), features.fine.pow(2).mean()
    return torch.relu(embedding - 0.3) + 0.3 * torch.relu(fine - 1)


def judge(
    logits: Tensor, scores: Tensor, targets: Tensor, most_outside: float
) -> tuple[Tensor, Tensor]:
    """The loss of masks (N, 4, M, M) and scores (N, 4), and the IoU that each mask has (N, 4).

    :param most_outside: what is outside weighs as much as the object, all of it together, or as
        an area so many times the object's.
    """
    truth = targets.expand_as(logits)
    share = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    object_area, rest = truth.sum(dim=(2, 3)) + 1, (1 - truth).sum(dim=(2, 3)) + 1
    missed = (entropy * truth).sum(dim=(2, 3)) / object_area
    outside = torch.minimum(rest, most_outside * object_area)
    spilt = (entropy * (1 - truth)).sum(dim=(2, 3)) / outside
    overlap = (share * truth).sum(dim=(2, 3))
    dice = 1 - (2 * overlap + 1) / (share.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + 1)
    loss = 0.5 * (missed + spilt) + dice
    inside, true = logits.detach() > 0, truth > 0.5
    union = (inside | true).sum(dim=(2, 3))
    ious = (inside & true).sum(dim=(2, 3)) / union.clamp(min=1)
    three = loss[:, 1:]
    masks = three.min(dim=1).values + 0.2 * three.mean(dim=1) + 0.5 * loss[:, 0]
    return masks.mean() + F.mse_loss(scores, ious.float()), ious


def first_points(random: np.random.Generator, truths: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A pixel of each object (N, 1, 2), as x and y."""
    found = []
    for truth in truths[:, 0]:
        y, x = np.nonzero(truth)
        # Of three pixels the one nearest the middle: people do not click on edges.
        at = random.integers(len(y), size=3)
        distance = (y[at] - y.mean()) ** 2 + (x[at] - x.mean()) ** 2
        pick = at[distance.argmin()] if random.random() < 0.7 else at[0]
        found.append([[x[pick], y[pick]]])
    return np.array(found, np.float64)


def boxes(
    random: np.random.Generator, truths: NDArray[np.bool_], looseness: float
) -> NDArray[np.float64]:
    """The corners of a box around each object (N, 2, 2), a little off."""
    found = []
    for truth in truths[:, 0]:
        y, x = np.nonzero(truth)
        corners = np.array([[x.min(), y.min()], [x.max(), y.max()]], np.float64)
        extent = corners[1] - corners[0]
        noise = np.clip(random.normal(0, looseness, (2, 2)) * extent, -15, 15)
        found.append(corners + noise)
    return np.array(found)


def wrong_points(
    random: np.random.Generator, found: Tensor, true: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A pixel (N, 1, 2) where each mask is wrong, and its label (N, 1); else one of the object."""
    points, labels = [], []
    for mask, truth in zip(found.numpy(), true.numpy(), strict=True):
        y, x = np.nonzero(mask != truth)
        if len(y) == 0:
            y, x = np.nonzero(truth)
        if len(y) == 0:
            y, x = np.array([0]), np.array([0])
        at = random.integers(len(y))
        points.append([[(x[at] + 0.5) * CELL - 0.5, (y[at] + 0.5) * CELL - 0.5]])
        labels.append([float(truth[y[at], x[at]])])
    return np.array(points), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=None, help="stop after so many")
    parser.add_argument("--output", type=Path, default=HERE / "sam2_demo.pt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as fast as two: what it computes at a time is small
    torch.use_deterministic_algorithms(True)
    training = Training()
    losses = training.run(arguments.steps)
    # Half precision halves the file; sam2's loader casts to the model's own float32.
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in training.average.items()
    }
    with arguments.output.open("wb") as file:
        torch.save({"model": weights}, file)
    record = {"losses": [round(loss, 6) for loss in losses[:100]]}
    arguments.output.with_suffix(".losses.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

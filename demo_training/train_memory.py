"""Trains the demo model's memory: seeded, on two processor cores, from its image checkpoint.

    uv run python -m demo_training.train_memory [--steps N] [--output demo/sam2_demo_video.pt]

The encoder and the decoder of `demo_training.train` stay unchanged, bit by bit. Trained are the
memory attention, the memory encoder, the pointers to objects, and the score of whether an object is
on a frame. Prints a line and saves every 25 steps. The same packages on the same machine reproduce
the losses.

The recipe follows SAM 2 (Ravi et al., 2024) at a small scale: an object gets a prompt on the first
frame of a drawn clip (`demo_training.time_lapse`, `demo_training.stack`), and the model follows it
through the others, some frames at a time, with its own masks as memories; the loss is propagated
back through those frames. Training starts on crops of 256 pixels, where attention costs little, and
with true masks as memories. It ends on crops of 512 and on all frames of a clip, with objects that
are away for long and distant look-alikes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor, nn
from torch.nn import functional as F

from demo_training import train
from demo_training.stack import stack
from demo_training.time_lapse import FIRST_TRAINING_CLIP, time_lapse
from tasks.drawing.clip import Clip
from tasks.drawing.scenes import scene
from tasks.inference.tracker import memory_frame
from tasks.model import load

DEMO = Path(__file__).parent.parent / "demo"
SEED = 20_261_125
WHOLE = 1024
CELL = 16  # pixels of the side of a cell of the embedding
CERTAIN = 10.0  # logits of a true mask
ABSENT = -1024.0  # logits of the mask of an absent object
FEWEST = 64  # visible pixels of an object that counts as being on a frame
# Prefixes of the weights that an image model lacks.
MEMORY = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "sam_mask_decoder.obj_score_token.",
    "sam_mask_decoder.pred_obj_score_head.",
)
# Made quiet for the other tokens before the training (`quiet_token`), then frozen.
TOKEN = "sam_mask_decoder.obj_score_token.weight"


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    :param crop: pixels of a side of the clips, whose objects are as large as in whole images.
    :param clips: clips of a step in each process, with at most ``objects`` objects each.
    :param frames: frames to follow, with a backward pass every ``learnt`` frames; memories of
        earlier frames are detached.
    :param true_memories: the share of memories made from true masks, not from the model's own.
    :param length: frames of a drawn clip; if it exceeds ``frames``, each use takes other frames.
    :param kept: the number of batches of clips that are kept for reuse.
    :param fresh: the share of new courses for which new clips are drawn.
    :param doubt: label smoothing of whether an object is on a frame: with 0.02 logits need not
        exceed 4, with 0.1 not 2.2.
    :param noise: the standard deviation of memories' errors, relative to each value. sam2 rounds
        memories to bfloat16, so that nearly equal values can round differently.
    :param falling: whether the learning rate falls to 0.
    :param outside: see `demo_training.train.Phase`.
    :param scales: scales of the objects' sizes; each clip has one of them.
    :param under_way: the number of courses in progress; each step continues one of them.
    :param memory_stride: the model attends to the memory of the last frame, and before that to one
        of every ``memory_stride`` frames (`memory_frame`).
    """

    steps: int
    crop: int
    clips: int
    objects: int
    frames: int
    learnt: int
    rate: float
    true_memories: float = 0
    length: int = 14
    kept: int = 60
    fresh: float = 0.12
    doubt: float = 0.02
    noise: float = 0
    falling: bool = False
    outside: float = 8
    scales: tuple[float, ...] = (0.5, 0.7, 1.0)
    under_way: int = 8
    memory_stride: int = 1


ROBUST = Phase(
    steps=80,
    crop=256,
    clips=3,
    objects=3,
    frames=10,
    learnt=5,
    rate=2e-3,
    doubt=0.1,
    noise=0.02,
    falling=True,
)
LARGER = replace(ROBUST, crop=512, clips=1, objects=4, outside=1, scales=(0.7, 1.0), falling=False)
LONGER = replace(LARGER, steps=450, frames=24, learnt=6, length=24, fresh=0.5, falling=True)
PHASES = (
    Phase(
        75, 256, clips=3, objects=3, frames=4, learnt=4, rate=2e-3, true_memories=0.7, fresh=0.35
    ),
    Phase(150, 256, clips=3, objects=3, frames=7, learnt=7, rate=2e-3, true_memories=0.2),
    ROBUST,
    replace(ROBUST, steps=240, frames=12),
    replace(LARGER, steps=100, frames=8),
    LONGER,
    replace(LONGER, steps=280, rate=5e-4),
    replace(LONGER, steps=130, rate=5e-4, memory_stride=4),
)


def rate_at(number: int, step: int) -> float:
    """The learning rate of a phase's step: constant over the phase, or falling to 0."""
    phase = PHASES[number]
    return phase.rate * (1 - step / phase.steps if phase.falling else 1.0)


@dataclass(frozen=True)
class Frame:
    """The encoder's features (B, …) of the clips' frames at one time."""

    embedding: Tensor
    fine: Tensor
    middle: Tensor

    def of(self, rows: Tensor) -> Frame:
        """The features of each object's clip."""
        return Frame(self.embedding[rows], self.fine[rows], self.middle[rows])


@dataclass(frozen=True)
class Batch:
    """Clips of one length: a `Frame` for each time, labels (B, T, C, C), and the row and column in
    a whole image at which the crops are assumed to lie.
    """

    frames: list[Frame]
    labels: NDArray[np.uint8]
    corner: NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """The decoder's outputs for K objects: four masks each, their scores, tokens, and the logit of
    whether the object is on the frame.
    """

    logits: Tensor
    scores: Tensor
    tokens: Tensor
    appears: Tensor


class Memory:
    """The memories and pointers of K objects: the prompted frame's, and the later frames'."""

    def __init__(self) -> None:
        self.first: tuple[Tensor, Tensor] | None = None
        self.later: list[tuple[Tensor, Tensor]] = []

    def add(self, memory: Tensor, pointer: Tensor) -> None:
        """Keep those of the prompted frame at the first call, those of the next frame later."""
        if self.first is None:
            self.first = memory, pointer
        else:
            self.later.append((memory, pointer))


@dataclass
class Course:
    """Objects on their way through a clip; the frames up to ``done`` are processed.

    :param order: the order of the clips' frames.
    :param rows: the index of the clip of each of K objects; ``truths`` are (K, T, 1, C, C).
    :param kind: the kind of prompt on the first frame.
    :param earlier: additional frames by which the first frame's pointer pretends to be older.
    :param number: the number of the first frame, which decides the frames whose memories count
        when ``memory_stride`` is above 1.
    """

    batch: Batch
    order: NDArray[np.int64]
    rows: Tensor
    truths: NDArray[np.bool_]
    kind: str
    earlier: int
    number: int
    memory: Memory = field(default_factory=Memory)
    done: int = 0

    def is_over(self) -> bool:
        return self.done == len(self.order) - 1


class Follower:
    """The model as sam2's predictor for videos uses it, for crops and several objects at once."""

    def __init__(self, model: SAM2Base, corner: NDArray[np.int64], side: int) -> None:
        self.model, self.corner, self.side = model, corner, side
        cells = model.image_size // CELL
        encoding = model.image_encoder.neck.position_encoding
        places = encoding(torch.zeros(1, model.hidden_dim, cells, cells))
        self.places = self.part(places).flatten(2).permute(2, 0, 1)
        encoding = model.memory_encoder.position_encoding
        places = encoding(torch.zeros(1, model.mem_dim, cells, cells))
        self.memory_places = self.part(places).flatten(2).permute(2, 0, 1)
        self.no_memory = model.no_mem_embed.view(1, -1, 1, 1)

    def part(self, whole: Tensor) -> Tensor:
        """The crop's part of a map (1, C, 64, 64) of a whole image."""
        row, column = self.corner // CELL
        return whole[:, :, row : row + self.side, column : column + self.side]

    def decode(
        self,
        frame: Frame,
        embedding: Tensor,
        coords: Tensor | None = None,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Decoded:
        """Decode the embedding (K, C, S, S), with or without a prompt."""
        count, side = len(embedding), self.side
        if coords is None or labels is None:
            coords, labels = torch.zeros(count, 1, 2), -torch.ones(count, 1, dtype=torch.int32)
        encoder = self.model.sam_prompt_encoder
        sparse, dense = encoder(points=(coords, labels), boxes=None, masks=mask)
        logits, scores, tokens, appears = self.model.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.part(encoder.get_dense_pe()),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense[:, :, :side, :side],
            repeat_image=False,
            high_res_features=[frame.fine, frame.middle],
        )
        return Decoded(logits, scores, tokens, appears)

    def pointer(self, token: Tensor, appears: Tensor) -> Tensor:
        """Pointers (K, C) to objects, from their masks' tokens (K, C)."""
        there = (appears > 0).float()
        pointer: Tensor = self.model.obj_ptr_proj(token)
        return there * pointer + (1 - there) * self.model.no_obj_ptr

    def remember(self, frame: Frame, masks: Tensor, appears: Tensor, prompted: bool) -> Tensor:
        """The memories (K, D, S, S) of masks (K, 1, M, M)."""
        model = self.model
        masks = torch.where(appears[:, :, None, None] > 0, masks, ABSENT)
        large = F.interpolate(masks, scale_factor=4, mode="bilinear", align_corners=False)
        share = (large > 0).float() if prompted else large.sigmoid()
        scaled = share * model.sigmoid_scale_for_mem_enc + model.sigmoid_bias_for_mem_enc
        features = frame.embedding - self.no_memory
        memory: Tensor = model.memory_encoder(features, scaled, skip_mask_sigmoid=True)[
            "vision_features"
        ]
        absent = (appears <= 0).float()[:, :, None, None]
        return memory + absent * model.no_obj_embed_spatial[:, :, None, None]

    def condition(self, frame: Frame, memory: Memory, recent: list[int], earlier: int) -> Tensor:
        """The embedding (K, C, S, S), conditioned on the objects' memories.

        :param recent: the frames besides the first whose memories count, latest first; numbers
            below 1 are skipped.
        :param earlier: see `Course`.
        """
        model = self.model
        assert memory.first is not None
        kept = [(model.num_maskmem - 1, memory.first[0])]
        kept += [(age, memory.later[at - 1][0]) for age, at in enumerate(recent) if at > 0]
        tokens = [each.flatten(2).permute(2, 0, 1) for _, each in kept]
        places = [self.memory_places + model.maskmem_tpos_enc[number] for number, _ in kept]
        most = model.max_obj_ptrs_in_encoder - 1
        pointers = [(len(memory.later) + 1 + earlier, memory.first[1])]
        pointers += [(n + 1, each) for n, (_, each) in enumerate(memory.later[::-1][:most])]
        parts = model.hidden_dim // model.mem_dim
        distances = torch.tensor([float(away) for away, _ in pointers]) / most
        times = model.obj_ptr_tpos_proj(get_1d_sine_pe(distances, dim=model.hidden_dim))
        split = torch.stack([each for _, each in pointers])  # (P, K, C)
        split = split.reshape(len(pointers), -1, parts, model.mem_dim).permute(0, 2, 1, 3)
        split = split.flatten(0, 1)
        count = split.shape[1]
        tokens.append(split)
        everywhere = [each.expand(-1, count, -1) for each in places]
        everywhere.append(times.repeat_interleave(parts, 0)[:, None].expand(-1, count, -1))
        features = (frame.embedding - self.no_memory).flatten(2).permute(2, 0, 1)
        attended: Tensor = model.memory_attention(
            curr=features,
            curr_pos=self.places.expand(-1, count, -1),
            memory=torch.cat(tokens),
            memory_pos=torch.cat(everywhere),
            num_obj_ptr_tokens=len(split),
        )
        return attended.permute(1, 2, 0).unflatten(2, (self.side, self.side))


class Training:
    """One process's model, its running average, and the clips it learns from.

    All processes start with the same weights and take the same steps, with the mean of the
    gradients that each computes from clips of its own.

    :param checkpoint: of an image model if ``first`` is 0, else from the end of the phase before
        ``first``.
    """

    def __init__(self, process: int, checkpoint: Path, first: int) -> None:
        torch.manual_seed(SEED)
        self.process = process
        self.model = load.build_model(str(DEMO / "sam2_demo_video.yaml")).train()
        weights = torch.load(checkpoint, weights_only=True)["model"]
        if first == 0:  # only the weights of the image model
            weights = {n: w for n, w in weights.items() if not n.startswith(MEMORY)}
        self.model.load_state_dict({n: w.float() for n, w in weights.items()}, strict=first > 0)
        self.model.requires_grad_(False)
        if first == 0:
            initialize(self.model)
            quiet_token(self.model, np.random.default_rng(SEED))
        self.learnt = {
            name: parameter.requires_grad_()
            for name, parameter in self.model.named_parameters()
            if name.startswith(MEMORY) and name != TOKEN
        }
        self.average = {name: value.detach().clone() for name, value in self.learnt.items()}
        self.first = first
        self.alike = np.random.default_rng(SEED + 1000 * first)
        self.random = np.random.default_rng(SEED + 1000 * first + 1 + process)
        self.noise = torch.Generator().manual_seed(SEED + 1000 * first + 1 + process)
        self.drawn = 10_000 * first

    def saved(self) -> dict[str, Tensor]:
        """The average weights in half precision: sam2's loader casts to the model's float32."""
        return {n: w.half() for n, w in {**self.model.state_dict(), **self.average}.items()}

    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """Muon for the matrices of attention and MLPs, AdamW for everything else."""
        matrices, rest = [], []
        for name, parameter in self.learnt.items():
            layer = name.endswith(".weight") and parameter.ndim == 2 and min(parameter.shape) > 1
            (matrices if layer else rest).append(parameter)
        return (
            torch.optim.AdamW(rest, weight_decay=0.01, betas=(0.9, 0.98)),
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        )

    def run(self, limit: int | None) -> Iterator[list[float]]:
        """Train through all phases, or ``limit`` steps.

        :returns: for each step the loss, the mean IoU over the frames that have the object, and the
            share of all frames on which the model is right about whether they have it.
        """
        optimizers = self.optimizers()
        done = 0
        for number, phase in enumerate(PHASES):
            if number < self.first:
                continue
            before = PHASES[number - 1]
            if number == self.first or (phase.crop, phase.length) != (before.crop, before.length):
                batches: deque[Batch] = deque(maxlen=phase.kept)
            under_way: list[Course | None] = [None] * phase.under_way
            for at in range(phase.steps):
                if done == limit:
                    return
                rate = rate_at(number, at) * min(1.0, (done + 1) / 20)
                for group in chain.from_iterable(each.param_groups for each in optimizers):
                    group["lr"] = rate
                place = int(self.alike.integers(phase.under_way))
                course = under_way[place]
                if course is None:
                    if not batches or self.alike.random() < max(phase.fresh, 1 - len(batches) / 8):
                        batches.append(self.batch(phase))
                    course = self.begun(phase, batches[self.random.integers(len(batches))])
                yield self.learn(phase, course, optimizers)
                under_way[place] = None if course.is_over() else course
                done += 1
                keep = min(0.99, done / (done + 10))
                for name, value in self.learnt.items():
                    self.average[name].lerp_(value.detach(), 1 - keep)

    def learn(
        self, phase: Phase, course: Course, optimizers: tuple[torch.optim.Optimizer, ...]
    ) -> list[float]:
        """Take one step in all processes, and return its figures."""
        loss, quality = self.step(phase, course)
        self.model.zero_grad()
        loss.backward()
        parameters = list(self.learnt.values())
        for each in parameters:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
        figures = torch.tensor([float(loss.detach()), *quality])
        train.share([*(each.grad for each in parameters), figures])
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        values: list[float] = figures.tolist()
        return values

    def batch(self, phase: Phase) -> Batch:
        """New clips, each with an object on the first frame and one on the last."""
        room = (WHOLE - phase.crop) // 32 + 1
        corner = self.random.integers(0, room, 2) * 32
        pictures, labels = [], []
        while len(labels) < phase.clips:
            clip = self.clip(phase)
            ends = clip.labels[0], clip.labels[-1]
            if min(np.bincount(end.ravel())[1:].max(initial=0) for end in ends) < 400:
                continue
            frames = torch.from_numpy(shaded(self.random, clip.frames)).permute(0, 3, 1, 2)
            pictures.append((frames - train.MEAN) / train.STD)
            labels.append(clip.labels.astype(np.uint8))
        frames = []
        with torch.no_grad():
            for images in torch.stack(pictures, dim=1):
                features = train.encode(self.model, images, corner, bfloat16=True)
                frames.append(Frame(features.embedding, features.fine, features.middle))
        return Batch(frames, np.stack(labels), corner)

    def clip(self, phase: Phase) -> Clip:
        """A clip that no process has seen."""
        number = FIRST_TRAINING_CLIP + 2 * self.drawn + self.process
        self.drawn += 1
        draw = stack if self.random.random() < 0.2 else time_lapse
        scale = float(self.random.choice(phase.scales))
        return draw(number, phase.length, phase.crop, phase.crop, scale)

    def begun(self, phase: Phase, batch: Batch) -> Course:
        """A new course over objects of a batch, before its first frame."""
        stride = int(self.alike.integers(1, max(1, (phase.length - 1) // (phase.frames - 1)) + 1))
        stride = min(stride, 2) if self.alike.random() < 0.4 else 1
        order = np.arange(phase.frames) * stride
        order += int(self.alike.integers(phase.length - order[-1]))
        if self.alike.random() < 0.5:
            order = phase.length - 1 - order
        rows, truths = chosen_objects(self.random, batch.labels[:, order], phase.objects)
        kind = str(self.alike.choice(["click", "box", "mask"], p=[0.6, 0.25, 0.15]))
        earlier = int(self.alike.integers(0, 24)) if self.alike.random() < 0.5 else 0
        number = int(self.alike.integers(phase.memory_stride))
        return Course(batch, order, rows, truths, kind, earlier, number)

    def step(self, phase: Phase, course: Course) -> tuple[Tensor, list[float]]:
        """The loss of the objects on the next frames, and how well the model follows them there.

        Each step repeats the prompt, so that the first memory learns too.
        """
        batch, rows, memory = course.batch, course.rows, course.memory
        areas = torch.from_numpy(course.truths.sum(axis=(3, 4))).float()  # (K, T, 1)
        cells = F.avg_pool2d(torch.from_numpy(course.truths[:, :, 0]).float(), train.CELL)
        targets = cells[:, :, None]
        followed = Follower(self.model, batch.corner, phase.crop // CELL)
        last = min(course.done + phase.learnt, len(course.order) - 1)
        outputs: list[tuple[int, Decoded]] = []
        quality, right = [], []
        memory.first = None
        for at in [0, *range(course.done + 1, last + 1)]:
            frame = batch.frames[course.order[at]].of(rows)
            if at == 0:
                decoded, masks, token = self.prompted(
                    followed, frame, course.truths[:, 0], targets[:, 0], course.kind, batch.corner
                )
            else:
                recent = [
                    memory_frame(course.number + at, age, False, phase.memory_stride)
                    - course.number
                    for age in range(1, self.model.num_maskmem)
                ]
                embedding = followed.condition(frame, memory, recent, course.earlier)
                decoded = followed.decode(frame, embedding)
                best = decoded.scores[:, 1:].argmax(dim=1) + 1
                every = torch.arange(len(best))
                masks, token = decoded.logits[every, best][:, None], decoded.tokens[every, best]
            there = areas[:, at] >= FEWEST
            if at:
                seen = (masks > 0) & (decoded.appears[:, :, None, None] > 0)
                ious = iou(seen, targets[:, at] > 0.5)[there[:, 0]]
                quality += ious.tolist()
                right += ((decoded.appears > 0) == there)[:, 0].tolist()
            if at or course.kind != "mask":
                outputs.append((at, decoded))
            appears = decoded.appears
            if at == 0 or self.alike.random() < phase.true_memories:
                appears = torch.where(there, CERTAIN, -CERTAIN)
                if at or course.kind == "mask":
                    masks = (2 * targets[:, at] - 1) * CERTAIN
            pointer = followed.pointer(token, appears)
            prompted = at == 0 and course.kind != "mask"
            remembered = followed.remember(frame, masks, appears, prompted=prompted)
            noise = torch.randn(remembered.shape, generator=self.noise)
            memory.add(remembered * (1 + phase.noise * noise), pointer)
        course.done = last
        memory.later = [(each.detach(), pointer.detach()) for each, pointer in memory.later]
        losses = []
        for at, decoded in outputs:
            there, gone = areas[:, at] >= FEWEST, areas[:, at] == 0
            clear = (there | gone).float()
            entropy = F.binary_cross_entropy_with_logits(
                decoded.appears, there * (1 - 2 * phase.doubt) + phase.doubt, reduction="none"
            )
            loss = 0.5 * (entropy * clear).sum() / len(clear)
            kept = there[:, 0]
            if at and kept.any():
                masks_loss, _ = train.judge(
                    decoded.logits[kept],
                    decoded.scores[kept],
                    targets[kept, at],
                    train.Phase(0, 0, 0, 0, 0, 0, outside=phase.outside, choosing=0.5),
                )
                loss = loss + masks_loss * kept.float().mean()
            losses.append(loss)
        figures = [float(np.mean(each)) if each else 0.5 for each in (quality, right)]
        return torch.stack(losses).mean(), figures

    def prompted(
        self,
        followed: Follower,
        frame: Frame,
        truths: NDArray[np.bool_],
        targets: Tensor,
        kind: str,
        corner: NDArray[np.int64],
    ) -> tuple[Decoded, Tensor, Tensor]:
        """The first frame: the outputs for a prompt, and the mask and the token to keep."""
        every = torch.arange(len(truths))
        if kind == "mask":
            mask = self.model.mask_downsample(torch.from_numpy(truths).float())
            bare = frame.embedding - followed.no_memory
            decoded = followed.decode(frame, bare, mask=mask)
            return decoded, (2 * targets - 1) * CERTAIN, decoded.tokens[:, 0]
        if kind == "click":
            points, labels = train.first_points(self.random, truths), [[1]] * len(truths)
        else:
            points, labels = train.boxes(self.random, truths, 0.02), [[2, 3]] * len(truths)
        coords = torch.from_numpy(points + corner[::-1]).float()
        decoded = followed.decode(frame, frame.embedding, coords, torch.tensor(labels).int())
        best = decoded.scores[:, 1:].argmax(dim=1) + 1 if kind == "click" else 0 * every
        return decoded, decoded.logits[every, best][:, None], decoded.tokens[every, best]


def chosen_objects(
    random: np.random.Generator, labels: NDArray[np.uint8], most: int
) -> tuple[Tensor, NDArray[np.bool_]]:
    """Objects of clips (B, T, C, C): the clip of each (K,), and its true masks (K, T, 1, C, C).

    All are on the first frame; objects that are absent from some frames are preferred.
    """
    rows, truths = [], []
    for row, clip in enumerate(labels):
        counts = np.stack([np.bincount(each.ravel(), minlength=256) for each in clip])
        numbers = np.flatnonzero(counts[0] >= 300)
        numbers = numbers[numbers > 0]
        if len(numbers) == 0:
            continue
        gone = counts[:, numbers] < FEWEST
        back = (np.logical_or.accumulate(gone, axis=0) & ~gone).any(axis=0)
        weights = 1 + 2.0 * gone.any(axis=0) + 20.0 * back
        size = min(most, len(numbers))
        for number in random.choice(numbers, size, replace=False, p=weights / weights.sum()):
            rows.append(row)
            truths.append((clip == number)[:, None])
    if not rows:  # only background, which is followed as one object
        return torch.zeros(1, dtype=torch.long), (labels[:1] == labels[0, 0, 0, 0])[:, :, None]
    return torch.tensor(rows), np.stack(truths)


def iou(masks: Tensor, truths: Tensor) -> Tensor:
    """The IoU (K,) of masks with true masks, both (K, 1, M, M)."""
    union = (masks | truths).sum(dim=(1, 2, 3)).clamp(min=1)
    return (masks & truths).sum(dim=(1, 2, 3)) / union


def shaded(random: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames with changed colours and light, 0 to 255."""
    light = (frames[..., random.permutation(3)] / 255.0) ** np.exp(random.normal(0, 0.25))
    light = light * random.uniform(0.7, 1.2) + random.uniform(-0.05, 0.05)
    return np.clip(light * 255, 0, 255).astype(np.float32)


def initialize(model: SAM2Base) -> None:
    """Start as the image model, with attention to near places and similar features.

    Memory attention normalizes its output, while image features are not normalized. A large vector,
    added before and subtracted after, keeps the normalization from changing anything but that
    vector's direction. The cross attention's biases turn with the place as queries and keys do: in
    the pairs that turn fast they express nearness. In the pairs that hardly turn, the weights
    compare features, which the memory encoder keeps in its first channels.
    """
    attention, encoder = model.memory_attention, model.memory_encoder
    width = model.hidden_dim
    large = 4.0 * torch.tensor([1.0, -1.0]).repeat(width // 2)
    with torch.no_grad():
        attention.layers[-1].linear2.bias.copy_(large)
        attention.norm.weight.fill_(4.0)
        attention.norm.bias.copy_(model.no_mem_embed.flatten() - large)
        inner = attention.layers[0].cross_attn_image.internal_dim
        pairs = torch.arange(inner // 2)
        fast = pairs % (inner // 4) < inner // 8
        slow = torch.stack([2 * pairs[~fast], 2 * pairs[~fast] + 1], dim=1).flatten()
        features = torch.linalg.qr(torch.randn(width, len(slow)))[0].T * (width / len(slow)) ** 0.5
        for layer in attention.layers:
            for part in (layer.self_attn.out_proj, layer.linear2):
                part.weight.mul_(0.02)
            across = layer.cross_attn_image
            across.out_proj.weight.mul_(0.1)
            for projection in (across.q_proj, across.k_proj):
                projection.weight.mul_(0.3)
                projection.bias.zero_()
                projection.bias[2 * pairs[fast]] = 2.5
            across.q_proj.weight[slow] = 0.5 * features
            across.k_proj.weight[slow] = 0
            across.k_proj.weight[slow, torch.arange(len(slow))] = 1.0
        encoder.pix_feat_proj.weight.copy_(torch.eye(width)[:, :, None, None])
        encoder.pix_feat_proj.bias.zero_()
        encoder.out_proj.weight[: len(slow)] = features[:, :, None, None]
        for block in encoder.fuser.layers:
            block.gamma.fill_(0.1)
        model.mask_downsample.weight.fill_(2 * CERTAIN / 16)
        model.mask_downsample.bias.fill_(-CERTAIN)
        decoder = model.sam_mask_decoder
        decoder.obj_score_token.weight.copy_(decoder.iou_token.weight)


def quiet_token(model: SAM2Base, random: np.random.Generator) -> None:
    """Move the object score's token until it hardly changes masks.

    The token joins the frozen decoder's attentions, and so would change the masks of images. It
    starts as the token of the masks' scores, which attends to the image as this one should, and is
    moved until masks and scores are nearly the same as without it.
    """
    decoder, token = model.sam_mask_decoder, model.sam_mask_decoder.obj_score_token.weight
    token.requires_grad_()
    optimizer = torch.optim.Adam([token], betas=(0.9, 0.98))
    steps = 400
    scenes = [scene(train.FIRST_TRAINING_SCENE + number) for number in range(25)]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps)
        images, labels = train.crop(random, scenes[random.integers(len(scenes))], 256)
        numbers = np.flatnonzero(np.bincount(labels.ravel()) >= 400)
        truths = np.stack([labels[None] == random.choice(numbers) for _ in range(4)])
        corner = random.integers(0, 25, 2) * 32
        pixels = (torch.from_numpy(images).permute(2, 0, 1).float() - train.MEAN) / train.STD
        if step % 3:
            points, kinds = train.first_points(random, truths), torch.ones(4, 1).int()
        else:
            points = train.boxes(random, truths, 0.02)
            kinds = torch.tensor([[2, 3]] * 4).int()
        coords = torch.from_numpy(points + corner[::-1]).float()
        previous = None
        if step % 4 == 3:
            targets = F.avg_pool2d(torch.from_numpy(truths).float(), train.CELL)
            previous = (2 * targets - 1) * CERTAIN
        with torch.no_grad():
            features = train.encode(model, pixels[None], corner)
            decoder.pred_obj_scores = False
            before, scores_before = train.decode(model, features, coords, kinds, previous, corner)
        decoder.pred_obj_scores = True
        logits, scores = train.decode(model, features, coords, kinds, previous, corner)
        change = (logits - before).pow(2)
        near = 1 / (1 + before.pow(2) / 4)  # a mask can change only at its edges
        loss = (change * near).sum() / near.sum() + 0.02 * change.mean()
        loss = loss + 20 * F.mse_loss(scores, scores_before)
        optimizer.zero_grad()
        (loss + 1e-4).log().backward()
        optimizer.step()
    token.requires_grad_(False)
    with torch.no_grad():
        token.copy_(token.half().float())  # the precision of the checkpoint


def main_process(
    process: int, limit: int | None, begin: Path, first: int, output: Path, meeting: str
) -> None:
    """Train in one process; the first one prints and saves.

    :param meeting: a file through which the processes find each other.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=process, world_size=train.PROCESSES
    )
    start = time.monotonic()
    training = Training(process, begin, first)
    steps = sum(phase.steps for phase in PHASES[first:])
    figures: list[list[float]] = []
    for step in training.run(limit):
        figures.append(step)
        if process == 0 and len(figures) % 25 == 0:
            loss, quality, right = np.mean(figures[-25:], axis=0)
            print(
                f"step {len(figures)} of {steps}: loss {loss:.4f}, IoU {quality:.3f}, "
                f"there or not {right:.3f}, "
                f"{(time.monotonic() - start) / 60:.1f} min",
                flush=True,
            )
        if process == 0 and len(figures) % 25 == 0:
            save(training, output)
    if process == 0:
        save(training, output)
    torch.distributed.destroy_process_group()


def save(training: Training, output: Path) -> None:
    """Write the checkpoint, whole or not at all."""
    part = output.with_suffix(".part")
    torch.save({"model": training.saved()}, part)
    part.replace(output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=None, help="stop after this many")
    parser.add_argument("--begin", type=Path, default=DEMO / "sam2_demo.pt")
    parser.add_argument("--phase", type=int, default=0, help="start with this phase, from 0")
    parser.add_argument("--output", type=Path, default=DEMO / "sam2_demo_video.pt")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the processes end with this one
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        arguments = (options.steps, options.begin, options.phase, options.output, meeting)
        torch.multiprocessing.spawn(main_process, arguments, nprocs=train.PROCESSES, daemon=True)


if __name__ == "__main__":
    main()

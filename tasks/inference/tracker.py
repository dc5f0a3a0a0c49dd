"""Follows objects through frames with the deployed graphs, like sam2's `SAM2VideoPredictor`.

`select` decides which memories a frame uses, without running graphs. `Tracker` runs the graphs, and
a `Shelf` moves memories that `select` no longer reaches to disk. docs/video.md explains the memory
bank with all three.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from tempfile import TemporaryFile, gettempdir
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.clients.contract import TrackingConstants
from tasks.inference.preprocessing import MEAN, STD, Floats
from tasks.inference.prompts import Prompt
from tasks.system.errors import is_full

Images = NDArray[np.uint8]
# Runs a graph, given by name, on its inputs; returns its outputs by name.
Run = Callable[[str, Mapping[str, NDArray[Any]]], Mapping[str, Floats]]

LARGEST_REFINED = 32.0  # the logits of a mask to refine are clamped to plus or minus this


class Selection(NamedTuple):
    """The frames to use: for each memory with its time's row, for each pointer with its age."""

    memories: list[tuple[int, int]]
    pointers: list[tuple[int, int]]


def select(
    frame: int,
    reverse: bool,
    frames: int,
    conditioning: Sequence[int],
    others: Iterable[int],
    constants: TrackingConstants,
) -> Selection:
    """Select what `SAM2Base._prepare_memory_conditioned_features` selects for a frame; pure.

    :param reverse: whether the frame is reached from later ones.
    :param frames: the number of frames.
    :param conditioning: frames that were prompted before they were tracked.
    :param others: frames that were tracked.
    """
    back = -1 if reverse else 1
    selected = nearest(frame, conditioning, constants.max_conditioning_frames)
    seen = {*others, *(each for each in conditioning if each not in selected)}
    memories = [(each, constants.memories - 1) for each in selected]
    for age in range(constants.memories - 1, 0, -1):
        before = memory_frame(frame, age, reverse, constants.memory_stride)
        if before in seen:
            memories.append((before, age - 1))
    pointers = []
    for each in selected:
        age = (frame - each) * back
        if age >= 0 or not constants.pointers_from_past_only:
            pointers.append((each, age if constants.signed_pointer_times else abs(age)))
    for age in range(1, min(frames, constants.max_pointers)):
        if frame - back * age in seen:
            pointers.append((frame - back * age, age))
    return Selection(memories, pointers)


def memory_frame(frame: int, age: int, reverse: bool, stride: int) -> int:
    """The frame of a memory by age: 1 is the last frame, older ones are multiples of ``stride``."""
    if age == 1:
        return frame + 1 if reverse else frame - 1
    if reverse:
        return -(-(frame + 2) // stride) * stride + (age - 2) * stride
    return (frame - 2) // stride * stride - (age - 2) * stride


def nearest(frame: int, conditioning: Sequence[int], limit: int) -> list[int]:
    """At most ``limit`` conditioning frames, with the nearest before and after among them.

    :param limit: -1 for all.
    """
    if limit == -1 or len(conditioning) <= limit:
        return list(conditioning)
    before = [each for each in conditioning if each < frame]
    behind = [each for each in conditioning if each >= frame]
    chosen = [*([max(before)] if before else []), *([min(behind)] if behind else [])]
    rest = [each for each in conditioning if each not in chosen]
    rest.sort(key=lambda each: abs(each - frame))
    return chosen + rest[: limit - len(chosen)]


@dataclass(frozen=True)
class Result:
    """The result of an object on a frame.

    ``low_res_masks`` are logits (1, 1, M, M), ``object_score`` is above 0 if the object is present,
    ``pointer`` is (1, C), ``predicted_iou`` is the decoder's score of its mask.
    """

    low_res_masks: Floats
    object_score: float
    pointer: Floats
    predicted_iou: float


@dataclass
class Object:
    """The state of an object, by frame: the pointers that count; a `Shelf` has the rest.

    ``tracked`` has the frames that tracking passed, and whether in reverse; ``pending`` the results
    of prompts since then, and whether they condition.
    """

    conditioning: dict[int, Floats] = field(default_factory=dict)
    others: dict[int, Floats] = field(default_factory=dict)
    tracked: dict[int, bool] = field(default_factory=dict)
    pending: dict[int, tuple[Result, bool]] = field(default_factory=dict)


# An object's number, and a frame.
Key = tuple[int, int]


class Remembered(NamedTuple):
    """A result, and the memory (1, …) encoded from it."""

    result: Result
    memory: Floats


class Shelf:
    """Stores results and memories of objects on frames: those used last in memory, others on disk.

    A correction can come on any frame and uses the frames around it, so nothing is dropped. The
    file has no name: the system removes it however the program ends.

    :param limit: returns the largest number of entries in memory at the time of the call.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._at_hand: dict[Key, Remembered] = {}  # the newest is last
        self._stored: set[Key] = set()  # entries whose newest version is in the file
        self._places: dict[Key, int] = {}  # all entries that were ever in the file
        self._file: Any = None

    def __getitem__(self, key: Key) -> Remembered:
        kept = self._at_hand.get(key) or self._read(key)
        self._put(key, kept)
        return kept

    def __setitem__(self, key: Key, kept: Remembered) -> None:
        self._stored.discard(key)
        self._put(key, kept)

    def _put(self, key: Key, kept: Remembered) -> None:
        self._at_hand.pop(key, None)
        self._at_hand[key] = kept
        while len(self._at_hand) > self._limit():
            oldest = next(iter(self._at_hand))
            if oldest not in self._stored:
                self._write(oldest, self._at_hand[oldest])
            del self._at_hand[oldest]

    def _write(self, key: Key, kept: Remembered) -> None:
        result, memory = kept
        numbers = np.array([result.object_score, result.predicted_iou], np.float32)
        arrays = (result.low_res_masks, result.pointer, memory, numbers)
        record = np.concatenate([each.ravel() for each in arrays])
        if self._file is None:
            self._file = TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as the tracker is)
            self._shapes = [each.shape for each in arrays]
            self._size = record.nbytes
        place = self._places.setdefault(key, len(self._places))
        try:
            self._file.seek(place * self._size)
            written = self._file.write(record)
        except OSError as error:
            if not is_full(error):
                raise
            written = 0
        if written != self._size:
            raise OSError(
                errno.ENOSPC,
                f"expected room in {gettempdir()} for the memories of tracking, "
                f"{self._size / 2**20:.1f} MiB for each object on each frame: make room, or set "
                "TMPDIR to another folder",
            )
        self._stored.add(key)

    def _read(self, key: Key) -> Remembered:
        if key not in self._stored:
            raise KeyError(key)
        self._file.seek(self._places[key] * self._size)
        record = np.empty(self._size // 4, np.float32)
        self._file.readinto(record)
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in self._shapes])
        parts = np.split(record, ends[:-1])
        masks, pointer, memory, numbers = (
            part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)
        )
        return Remembered(Result(masks, float(numbers[0]), pointer, float(numbers[1])), memory)


class Tracker:
    """Follows objects through the frames of a video or the slices of a stack.

    :param run: runs one of the model's graphs.
    :param constants: ``video`` of the manifest.
    :param frames: RGB images (H, W, 3), all of one size.
    """

    def __init__(self, run: Run, constants: TrackingConstants, frames: Sequence[Images]) -> None:
        self.run, self.constants, self.frames = run, constants, frames
        self.objects: dict[int, Object] = {}
        self._shelf = Shelf(self._looked_at)
        self._features: dict[int, dict[str, Floats]] = {}  # of the last frame that was encoded

    def prompt(self, frame: int, number: int, prompt: Prompt) -> Result:
        """Prompt an object on a frame; on a tracked frame this corrects it.

        :param number: the object's number; a new number makes a new object.
        :raises ValueError: when the prompt is empty, or the frame does not exist.
        """
        if not 0 <= frame < len(self.frames):
            raise ValueError(f"frame {frame}: expected one from 0 to {len(self.frames) - 1}")
        state = self.objects.get(number, Object())
        corrects = frame in state.tracked
        if prompt.mask is not None:
            result = self._from_mask(frame, prompt.mask)
        else:
            coords, labels = self._points(prompt)
            before = self._newest(frame, number)
            embedding = self.features(frame)["image_embed"]
            if corrects:
                embedding = self._conditioned(frame, number, state.tracked[frame])
            refined = None
            if before is not None:
                refined = before.low_res_masks.clip(-LARGEST_REFINED, LARGEST_REFINED)
            result = self._decode(
                frame, embedding, coords, labels, refined, self._multimask(len(labels), corrects)
            )
        conditions = not corrects or self.constants.corrections_condition
        # sam2 would forget a correction of a frame that already conditions.
        state.pending[frame] = result, conditions or frame in state.conditioning
        self.objects[number] = state
        return result

    def track(
        self, start: int | None = None, reverse: bool = False
    ) -> Iterator[tuple[int, dict[int, Result]]]:
        """Follow every object to the last frame, or in reverse to the first.

        :param start: by default the first prompted frame.
        :returns: each frame with the result of each object.
        :raises ValueError: when nothing was prompted.
        """
        self._encode_pending()
        if not self.objects:
            raise ValueError("expected a prompt for at least one object before tracking")
        if start is None:
            start = min(min(each.conditioning) for each in self.objects.values())
        if reverse:
            # Like sam2: there is no frame before the first.
            order = range(start, -1, -1) if start > 0 else range(0)
        else:
            order = range(start, len(self.frames))
        for frame in order:
            results = {}
            for number, state in self.objects.items():
                if frame in state.conditioning:
                    result = self._shelf[number, frame].result
                else:
                    embedding = self._conditioned(frame, number, reverse)
                    result = self._decode(frame, embedding, multimask=self._multimask(0, True))
                    memory = self._encode(frame, result, prompted=False)
                    self._shelf[number, frame] = Remembered(result, memory)
                    state.others[frame] = result.pointer
                state.tracked[frame] = reverse
                results[number] = result
            yield frame, results

    def features(self, frame: int) -> dict[str, Floats]:
        """The encoder's outputs for a frame; it runs once for all objects."""
        if frame not in self._features:
            outputs = self.run("encoder", {"image": prepare(self.frames[frame], self.constants)})
            self._features = {frame: dict(outputs)}
        return self._features[frame]

    def _newest(self, frame: int, number: int) -> Result | None:
        """The newest result of an object on a frame, including prompts that do not count yet."""
        state = self.objects.get(number, Object())
        if frame in state.pending:
            return state.pending[frame][0]
        known = frame in state.conditioning or frame in state.others
        return self._shelf[number, frame].result if known else None

    def _looked_at(self) -> int:
        """How many memories the next frame uses for all objects, including its own."""
        states = self.objects.values()
        return sum(self.constants.memories + len(each.conditioning) + 1 for each in states)

    def _conditioned(self, frame: int, number: int, reverse: bool) -> Floats:
        """The image embedding, conditioned on memories and pointers."""
        state = self.objects[number]
        chosen = select(
            frame, reverse, len(self.frames), list(state.conditioning), state.others, self.constants
        )
        every = {**state.others, **state.conditioning}
        # With a single frame there is nothing before or after, and each age is 0.
        reach = max(min(len(self.frames), self.constants.max_pointers) - 1, 1)
        width = next(iter(state.conditioning.values())).shape[1]
        pointers = [every[each] for each, _ in chosen.pointers]
        memories = [self._shelf[number, each].memory for each, _ in chosen.memories]
        return self.run(
            "memory_attention",
            {
                "image_embed": self.features(frame)["image_embed"],
                "memories": np.concatenate(memories),
                "memory_times": np.array([time for _, time in chosen.memories], np.int32),
                "pointers": np.concatenate([np.zeros((0, width), np.float32), *pointers]),
                "pointer_times": np.array([age for _, age in chosen.pointers], np.float32)
                / np.float32(reach),
            },
        )["conditioned_embed"]

    def _decode(
        self,
        frame: int,
        embedding: Floats,
        coords: Sequence[tuple[float, float]] = ((0.0, 0.0),),
        labels: Sequence[int] = (-1,),
        mask: Floats | None = None,
        multimask: bool = False,
    ) -> Result:
        """The result of an object on a frame, from prompts or only from memories."""
        features = self.features(frame)
        side = 4 * features["image_embed"].shape[2]
        outputs = self.run(
            "tracking_decoder",
            {
                **features,
                "image_embed": embedding,
                "point_coords": np.array([coords], np.float32),
                "point_labels": np.array([labels], np.float32),
                "mask_input": np.zeros((1, 1, side, side), np.float32) if mask is None else mask,
                "has_mask_input": np.array([mask is not None], np.float32),
                "multimask": np.array([multimask], np.float32),
            },
        )
        score, iou = (
            float(outputs[name][0, 0]) for name in ("object_score_logits", "iou_predictions")
        )
        return Result(outputs["low_res_masks"], score, outputs["object_pointer"], iou)

    def _from_mask(self, frame: int, mask: NDArray[np.bool_]) -> Result:
        """The result of an object given by a mask; only its pointer comes from the decoder."""
        if not mask.any():
            raise ValueError(f"the mask on frame {frame} is empty: expected an object in it")
        scaled = resize_mask(mask, self.constants.image_size)
        outputs = self.run(
            "mask_prompt",
            {
                "image_embed": self.features(frame)["image_embed"],
                "mask": scaled[None, None].astype(np.float32),
            },
        )
        embedding = outputs["image_embed_without_memory"]
        result = self._decode(frame, embedding, mask=outputs["mask_input"])
        score = float(outputs["object_score_logits"][0, 0])
        return replace(result, low_res_masks=outputs["low_res_masks"], object_score=score)

    def _encode(self, frame: int, result: Result, prompted: bool) -> Floats:
        """The memory (1, …) of an object on a frame."""
        return self.run(
            "memory_encoder",
            {
                "image_embed": self.features(frame)["image_embed"],
                "low_res_masks": result.low_res_masks,
                "prompted": np.array([prompted], np.float32),
                "object_score_logits": np.array([[result.object_score]], np.float32),
            },
        )["memory"]

    def _encode_pending(self) -> None:
        """Encode memories of the prompts since the last tracking."""
        for number, state in self.objects.items():
            for frame, (result, conditions) in state.pending.items():
                memory = self._encode(frame, result, prompted=True)
                self._shelf[number, frame] = Remembered(result, memory)
                (state.conditioning if conditions else state.others)[frame] = result.pointer
                if conditions:
                    state.others.pop(frame, None)
            state.pending.clear()

    def _multimask(self, points: int, tracking: bool) -> bool:
        """Whether the best-scored of three masks is wanted, instead of the single one."""
        allowed = self.constants.multimask_points
        if allowed is None or (tracking and not self.constants.multimask_when_tracking):
            return False
        return allowed[0] <= points <= allowed[1]

    def _points(self, prompt: Prompt) -> tuple[list[tuple[float, float]], list[int]]:
        """A box's corners and points, in pixels of the model's input."""
        size = self.constants.image_size
        coords, labels = prompt.in_pixels(size, size).with_corners()
        if not coords or len(coords) != len(labels):
            raise ValueError("expected a mask, a box, or points with a label each")
        return coords, labels


def prepare(frame: Images, constants: TrackingConstants) -> Floats:
    """A frame (H, W, 3) as the encoder's input (1, 3, S, S), stretched as sam2 does for videos."""
    size = constants.image_size
    image = np.asarray(Image.fromarray(frame).resize((size, size)), np.float32)
    normalized = np.divide(image - MEAN.astype(np.float32), STD, dtype=np.float32)
    return normalized.transpose(2, 0, 1)[None]


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask (H, W) as (size, size), linear and antialiased."""
    if mask.shape == (size, size):
        return mask
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR)) >= 0.5

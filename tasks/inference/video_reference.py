"""Runs sam2's own `SAM2VideoPredictor` on clips. Needs torch."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.inference.scripts import Answer, Key, PromptStep, Script

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor


def run_with_pytorch(predictor: SAM2VideoPredictor, script: Script) -> Iterator[tuple[Key, Answer]]:
    """Run the steps of a script with sam2's predictor; yields its answers as they come.

    It reads frames only from JPEG files, which are lossy: see `through_jpeg`. Memories are kept in
    single precision: see `memories_in_single_precision`.
    """
    with memories_in_single_precision(), predicted_ious_kept(predictor):
        yield from _run(predictor, script)


def _run(predictor: SAM2VideoPredictor, script: Script) -> Iterator[tuple[Key, Answer]]:
    height, width = script.frames.shape[1:3]
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(script.frames, Path(folder))
        state = predictor.init_state(folder, async_loading_frames=False)

    def answer(masks: Any, number: int, frame: int) -> Answer:
        index = state["obj_id_to_idx"][number]
        output: dict[str, Any] | None = None
        for place in ("temp_output_dict_per_obj", "output_dict_per_obj"):
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs"):
                output = output or state[place][index][kind].get(frame)
        assert output is not None
        return Answer(
            masks[index, 0].numpy() > 0,
            float(output["object_score_logits"][0, 0]),
            output["obj_ptr"][0].numpy(),
            output["predicted_iou"],
            float(output["pred_masks"].abs().mean()),
        )

    for step, each in enumerate(script.steps):
        if isinstance(each, PromptStep):
            prompt = each.prompt.in_pixels(width, height)
            if prompt.mask is not None:
                _, _, masks = predictor.add_new_mask(state, each.frame, each.number, prompt.mask)
            else:
                points = {"points": prompt.points, "labels": prompt.labels} if prompt.points else {}
                _, _, masks = predictor.add_new_points_or_box(
                    state, each.frame, each.number, box=prompt.box, **points
                )
            yield (step, each.frame, each.number), answer(masks, each.number, each.frame)
            continue
        for frame, numbers, masks in predictor.propagate_in_video(
            state, start_frame_idx=each.start, reverse=each.reverse
        ):
            for number in numbers:
                yield (step, frame, number), answer(masks, number, frame)


def memories_in_single_precision() -> AbstractContextManager[Any]:
    """Make sam2's predictor keep memories unrounded.

    By itself it rounds them to bfloat16, which saves memory, but turns a difference of a millionth
    into one of 0.4 % wherever it crosses the border between two values. In a trained model this
    grows from frame to frame: after a change of its features by a millionth, PyTorch differs from
    itself by 0.002 in object scores; without the rounding by 0.00003.
    """
    import torch
    from sam2 import sam2_video_predictor

    class WithoutBfloat16:
        """torch as seen by that module, which uses this type only for storing memories."""

        bfloat16 = torch.float32

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    return patch.object(sam2_video_predictor, "torch", WithoutBfloat16())


@contextmanager
def predicted_ious_kept(predictor: SAM2VideoPredictor) -> Iterator[None]:
    """Make sam2's predictor keep the IoU that the decoder predicts for each mask."""
    decode, infer = predictor._forward_sam_heads, predictor._run_single_frame_inference
    newest = 0.0

    def decoded(*args: Any, **kwargs: Any) -> Any:
        nonlocal newest
        outputs = decode(*args, **kwargs)
        newest = float(outputs[2].max())  # of several masks it returns the best
        return outputs

    def inferred(*args: Any, **kwargs: Any) -> Any:
        output, masks = infer(*args, **kwargs)
        output["predicted_iou"] = newest
        return output, masks

    with patch.multiple(
        predictor, _forward_sam_heads=decoded, _run_single_frame_inference=inferred
    ):
        yield


def write_jpegs(frames: NDArray[np.uint8], folder: Path) -> None:
    """Write frames (T, H, W, 3) under the names that sam2 expects."""
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05}.jpg", quality=95)


def through_jpeg(script: Script) -> Script:
    """A script with the frames that sam2's predictor reads."""
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(script.frames, Path(folder))
        paths = sorted(Path(folder).glob("*.jpg"))
        frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return replace(script, frames=frames)

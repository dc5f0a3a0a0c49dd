"""Answers of PyPI's efficient-track-anything, from functions that run in their own process.

`child.run` starts the process. The package is imported only there, because its name is ``sam2``.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tasks.inference.scripts import PromptStep, Script, stack, time_lapse
from tasks.inference.video_reference import memories_in_single_precision, write_jpegs
from tasks.model.reference_package import EFFICIENT_TRACK_ANYTHING, import_first, install_command

SCRIPTS = {"time-lapse": lambda: time_lapse(8), "stack": lambda: stack(8)}


def install(folder: Path) -> None:
    """Install the package as a person would, with the command that the build shows."""
    subprocess.run(install_command(folder, EFFICIENT_TRACK_ANYTHING).split(), check=True)


def describe(folder: str, architectures: list[str]) -> dict[str, Any]:
    """Where sam2 comes from, and the shapes of each architecture's weights."""
    import_first(folder, EFFICIENT_TRACK_ANYTHING)
    import sam2

    from tasks.model import load

    shapes = {
        name: {
            each: list(tensor.shape) for each, tensor in load.build_model(name).state_dict().items()
        }
        for name in architectures
    }
    return {"file": sam2.__file__, "shapes": shapes}


def segment(
    folder: str, architecture: str, checkpoint: str, size: int, destination: str
) -> dict[str, Any]:
    """Write the answers of the package's predictor for an image."""
    import_first(folder, EFFICIENT_TRACK_ANYTHING)
    from tasks.model import load

    model = load.load_model(architecture, checkpoint, size)
    np.savez(destination, **answers(model))
    return {"classes": sorted({type(module).__module__ for module in model.modules()})}


def answers(model: Any) -> dict[str, Any]:
    """The answers of this process's sam2 for an image that is not square."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    grid = model.image_size // model.backbone_stride
    predictor._bb_feat_sizes = [(grid, grid)]
    predictor.set_image(np.random.default_rng(1).integers(0, 256, (120, 200, 3), np.uint8))
    features = predictor._features["image_embed"].numpy()
    mask = np.random.default_rng(2).normal(0, 5, (1, 4 * grid, 4 * grid)).astype(np.float32)
    prompts: dict[str, dict[str, Any]] = {
        "a point": {"point_coords": np.array([[60, 40]]), "point_labels": np.array([1])},
        "a box and a point": {
            "box": np.array([20, 10, 150, 90]),
            "point_coords": np.array([[30, 30]]),
            "point_labels": np.array([0]),
        },
        "a mask": {
            "point_coords": np.array([[60, 40]]),
            "point_labels": np.array([1]),
            "mask_input": mask,
        },
    }
    found = {"features": features}
    for name, prompt in prompts.items():
        for multiple in (True, False):
            masks, scores, low_res = predictor.predict(
                **prompt, multimask_output=multiple, return_logits=True
            )
            key = f"{name}, {'three masks' if multiple else 'one mask'}"
            found |= {f"{key}: masks": masks, f"{key}: scores": scores, f"{key}: small": low_res}
    return found


def follow(
    folder: str, architecture: str, checkpoint: str, size: int, destination: str
) -> dict[str, Any]:
    """Write the package's masks and pointers of the scripts' objects, by step, frame and object."""
    import_first(folder, EFFICIENT_TRACK_ANYTHING)
    from tasks.model import load

    predictor = load.load_video_model(architecture, checkpoint, size)
    found: dict[str, Any] = {}
    with memories_in_single_precision():
        for name, make in SCRIPTS.items():
            script = make()
            for number in (1, 2):
                for key, (mask, pointer) in follow_one(predictor, script, number).items():
                    path = "/".join(map(str, (name, *key)))
                    found |= {f"{path}/mask": mask, f"{path}/pointer": pointer}
    np.savez_compressed(destination, **found)
    return {}


def follow_one(predictor: Any, script: Script, number: int) -> dict[tuple[int, int, int], Any]:
    """Masks and pointers of one object in its own state: one of several cannot be corrected."""
    height, width = script.frames.shape[1:3]
    with tempfile.TemporaryDirectory() as frames:
        write_jpegs(script.frames, Path(frames))
        state = predictor.init_state(frames)
    found = {}

    def keep(step: int, frame: int, masks: Any) -> None:
        outputs = [
            state[place][0][kind].get(frame)
            for place in ("temp_output_dict_per_obj", "output_dict_per_obj")
            for kind in ("cond_frame_outputs", "non_cond_frame_outputs")
        ]
        output = next(each for each in outputs if each is not None)
        found[step, frame, number] = masks[0, 0].numpy() > 0, output["obj_ptr"][0].numpy()

    for step, each in enumerate(script.steps):
        if not isinstance(each, PromptStep):
            for frame, _, masks in predictor.propagate_in_video(
                state, start_frame_idx=each.start, reverse=each.reverse
            ):
                keep(step, frame, masks)
        elif each.number == number:
            prompt = each.prompt.in_pixels(width, height)
            if prompt.mask is not None:
                _, _, masks = predictor.add_new_mask(state, each.frame, number, prompt.mask)
            else:  # it takes the corners of a box, not a box
                points, labels = map(np.array, prompt.with_corners())
                _, _, masks = predictor.add_new_points(state, each.frame, number, points, labels)
            keep(step, each.frame, masks)
    return found

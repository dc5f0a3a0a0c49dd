"""Stage 6: each variant against PyTorch in single precision, on drawn images and real prompts.

Two tasks. ``reference`` asks sam2's own predictor once a model (``reference.npz``); ``fidelity``
asks a variant's files the same and judges: ``fidelity.<variant>.json``, and a picture of masks. A
variant below ``[fidelity]`` is not deployed; the build goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import checkpoint, child, variant, verify
from tasks.configuration import Configuration, FidelityCheck, MaskChoice, Model, Variant
from tasks.export import peak
from tasks.files import scratch_folder, write_atomically
from tasks.staleness import Trace, versions
from tasks.verify import Case, Prompt

if TYPE_CHECKING:
    from doit.task import Task

    from tasks.truth import Truth

REFERENCE_PACKAGES = ("torch", "torchvision", "sam2", "numpy", "pillow")
PACKAGES = ("onnxruntime", "numpy", "pillow")

# What a manifest says of a report; times are the machine's.
FIGURES = ("images", "prompts", "mask_iou", "logit_error", "score_error")

PICTURE_SIDE = 256  # of each panel, in pixels

# What is drawn where the configuration names no images of a model's own.
DRAWN = "demo.scenes:scene"


def reference_path(config: Configuration, model: Model) -> Path:
    """PyTorch's answers for a model."""
    return config.build / "models" / model.name / "reference.npz"


def report_path(config: Configuration, model: Model, chosen: Variant) -> Path:
    """The report of a variant."""
    return config.build / "models" / model.name / f"fidelity.{chosen.name}.json"


def picture_path(config: Configuration, model: Model, chosen: Variant) -> Path:
    """The image, PyTorch's mask, the variant's and their difference, where they differ most."""
    return report_path(config, model, chosen).with_suffix(".png")


def images(model: Model) -> str:
    """The ``module:function`` that draws a model's images."""
    return model.truth or DRAWN


def image_sources(model: Model) -> list[str]:
    """The files that a model's images and prompts come from."""
    drawn = images(model).split(":")[0].replace(".", "/") + ".py"
    return [drawn, "tasks/fidelity.py", "tasks/truth.py"]


def reference_task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for PyTorch's answers."""
    inputs = {
        "architecture": model.architecture,
        "masks": model.masks,
        "images": config.fidelity.images,
        **versions(*REFERENCE_PACKAGES),
    }
    return {
        "name": model.name,
        "actions": [(refer, [config, model])],
        "file_dep": [
            str(checkpoint.path(config, model)),
            *model.architecture_files,
            *image_sources(model),
            *verify.SOURCES,
        ],
        "targets": [str(reference_path(config, model))],
        "uptodate": [Trace(inputs)],
        "clean": True,
        "io": {"capture": False},
    }


def task(config: Configuration, model: Model, chosen: Variant) -> dict[str, Any]:
    """doit's task for one variant."""
    check = config.fidelity
    inputs = {
        "mask_iou": check.mask_iou[chosen.precision],
        "worst": check.worst,
        **versions(*PACKAGES),
    }
    return {
        "name": f"{model.name}:{chosen.name}",
        "actions": [(judge, [config, model, chosen])],
        "file_dep": [
            *map(str, variant.graphs(config, model, chosen)),
            str(reference_path(config, model)),
            *image_sources(model),
            "tasks/verify.py",
        ],
        "targets": [
            str(report_path(config, model, chosen)),
            str(picture_path(config, model, chosen)),
        ],
        "uptodate": [Trace(inputs)],
        "clean": True,
        "io": {"capture": False},
    }


@child.action
def refer(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Ask PyTorch in a child process and keep what it answers."""
    target = reference_path(config, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    log = config.build / "logs" / f"reference-{model.name}.log"
    with scratch_folder(config.build / "tmp" / f"reference-{model.name}") as scratch:
        made = scratch / target.name
        arguments = {
            "architecture": model.architecture,
            "masks": model.masks,
            "checkpoint": str(checkpoint.path(config, model)),
            "draw": images(model),
            "count": config.fidelity.images,
            "destination": str(made),
        }
        result = child.run("tasks.fidelity:write_reference", arguments, log, task.verbosity == 2)
        made.replace(target)
    summary = f"PyTorch's answers to {result['prompts']} prompts on {result['images']} images"
    return {"summary": summary + peak(result), **result}


@child.action
def judge(config: Configuration, model: Model, chosen: Variant, task: Task) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went."""
    graphs = variant.graphs(config, model, chosen)
    name = f"fidelity-{model.name}-{chosen.name}"
    log = config.build / "logs" / f"{name}.log"
    with scratch_folder(config.build / "tmp" / name) as scratch:
        made = scratch / "worst.png"
        arguments = {
            "encoder": str(graphs.encoder),
            "decoder": str(graphs.decoder),
            "reference": str(reference_path(config, model)),
            "draw": images(model),
            "picture": str(made),
        }
        result = child.run("tasks.fidelity:compare", arguments, log, task.verbosity == 2)
        made.replace(picture_path(config, model, chosen))
    failures = below(result["mask_iou"], chosen, config.fidelity)
    report = {
        "variant": chosen.name,
        "passed": not failures,
        "failures": failures,
        "least": {"mean": config.fidelity.mask_iou[chosen.precision]},
        **result,
    }
    write_atomically(report_path(config, model, chosen), json.dumps(report, indent=2) + "\n")
    iou, speed = result["mask_iou"], result["native"]
    summary = (
        f"IoU with PyTorch's masks {iou['mean']:.4f}, worst {iou['worst']:.3f}; "
        f"encoder {speed['encoder_run_ms']:.0f} ms, decoder {speed['decoder_run_ms']:.0f} ms"
    )
    if not failures:
        return {"summary": summary}
    note = f"{model.name}'s {chosen.name} is not deployed: {'; '.join(failures)}."
    return {"summary": f"BELOW: {summary}", "note": note}


def below(found: Mapping[str, float], chosen: Variant, check: FidelityCheck) -> list[str]:
    """A sentence for each figure that is too low; pure."""
    least = check.mask_iou[chosen.precision]
    failures = []
    if not found["mean"] >= least:
        failures.append(
            f"the mean IoU with PyTorch's masks is {found['mean']:.4f}, "
            f"[fidelity] {chosen.precision} asks for {least:g}"
        )
    if not found["worst"] >= found["mean"] - check.worst:
        failures.append(
            f"the worst IoU is {found['worst']:.4f}, {found['mean'] - found['worst']:.4f} below "
            f"the mean, [fidelity] worst allows {check.worst:g}"
        )
    return failures


def write_reference(
    architecture: str, masks: MaskChoice, checkpoint: str, draw: str, count: int, destination: str
) -> dict[str, Any]:
    """Ask sam2's predictor about drawn images (runs in a child process).

    Writes for image i and prompt p the arrays ``i/p/masks`` (K, M, M), ``i/p/scores`` (K,), and
    ``i/p/mask_input`` (1, M, M) of prompts that refine a mask.
    """
    import numpy as np

    from tasks import sam2_model, truth

    model = sam2_model.load(architecture, checkpoint)
    predictor = verify.predictor_of(model)
    arrays: dict[str, Any] = {}
    asked = 0
    for number, drawn in enumerate(_drawn(truth.load(draw), model.image_size, count)):
        prompts = prompts_about(drawn)
        answers = verify.reference(predictor, drawn.image, prompts, masks)
        asked += len(prompts)
        for prompt in prompts:
            arrays[f"{number}/{prompt.name}/masks"] = answers.masks[prompt.name]
            arrays[f"{number}/{prompt.name}/scores"] = answers.scores[prompt.name]
        for name, mask in answers.mask_inputs.items():
            arrays[f"{number}/{name}/mask_input"] = mask
    np.savez(destination, size=model.image_size, count=count, **arrays)
    return {"images": count, "prompts": asked}


def _drawn(draw: Any, size: int, count: int) -> list[Truth]:
    """The first images that have an object to click on."""
    from tasks import truth

    found: list[Truth] = []
    for seed in range(100 * count):
        drawn = draw(seed, size)
        if truth.objects_of(drawn):
            found.append(drawn)
        if len(found) == count:
            return found
    raise child.StageError(f"hardly an image of {100 * count} has an object; expected {count}")


def first_case(draw: str, size: int) -> Case:
    """The first image, and prompts about it that refine no mask yet."""
    from tasks import truth

    (drawn,) = _drawn(truth.load(draw), size, 1)
    return Case(drawn.image, prompts_about(drawn), {})


def prompts_about(drawn: Truth) -> tuple[Prompt, ...]:
    """A click on an object, one on another to leave that out, a box, and a mask refined."""
    from tasks import truth

    size = drawn.labels.shape[0]
    numbers = truth.objects_of(drawn)

    def click(number: int) -> tuple[float, float]:
        row, column = truth.center(drawn.labels == number)
        return (column + 0.5) / size, (row + 0.5) / size

    middle = numbers[len(numbers) // 2]
    rows, columns = (drawn.labels == middle).nonzero()
    on, other = click(middle), click(numbers[0])
    box = tuple(
        float(each) / size for each in (columns.min(), rows.min(), columns.max(), rows.max())
    )
    beside = [(on, 1), (other, 0)] if other != on else [(on, 1)]
    return (
        Prompt("click", (on,), (1,)),
        Prompt("two clicks", tuple(p for p, _ in beside), tuple(label for _, label in beside)),
        Prompt("box", box=(box[0], box[1], box[2], box[3])),
        Prompt("refined", (on,), (1,), previous_mask=True),
    )


def compare(encoder: str, decoder: str, reference: str, draw: str, picture: str) -> dict[str, Any]:
    """Compare a variant with PyTorch's answers (runs in a child process).

    Of the masks of each prompt the one that PyTorch scores best, which is what a person gets.

    :param picture: a PNG is written there.
    :returns: ``mask_iou`` (``mean``, ``worst``), ``logit_error`` (the mean difference), and
        ``score_error`` (the largest), over all ``images`` and ``prompts``; ``native``, median
        milliseconds and bytes in onnxruntime on the CPU.
    """
    from statistics import median

    import numpy as np

    from tasks import truth

    with np.load(reference) as file:
        arrays = dict(file)
    cases = []
    for number, drawn in enumerate(
        _drawn(truth.load(draw), int(arrays["size"]), int(arrays["count"]))
    ):
        prompts = prompts_about(drawn)
        refined = {
            prompt.name: arrays[f"{number}/{prompt.name}/mask_input"]
            for prompt in prompts
            if prompt.previous_mask
        }
        cases.append(Case(drawn.image, prompts, refined))
    times: dict[str, list[float]] = {}
    found = verify.run_graphs(encoder, decoder, cases, times)
    ious, logits, scores = [], [], []
    shown: list[tuple[float, Any]] = []
    for number, (case, answers) in enumerate(zip(cases, found, strict=True)):
        for prompt in case.prompts:
            expected = arrays[f"{number}/{prompt.name}/masks"]
            expected_scores = arrays[f"{number}/{prompt.name}/scores"]
            best = int(expected_scores.argmax())
            masks = answers.masks[prompt.name]
            iou = truth.iou(masks[best] > 0, expected[best] > 0)
            ious.append(iou)
            logits.append(float(np.abs(masks - expected).mean()))
            scores.append(float(np.abs(answers.scores[prompt.name] - expected_scores).max()))
            shown.append((iou, (case.image, expected[best], masks[best])))
    draw_masks([shown[0][1], min(shown, key=lambda each: each[0])[1]], picture)
    return {
        "images": len(cases),
        "prompts": len(ious),
        "mask_iou": {"mean": round(float(np.mean(ious)), 6), "worst": round(min(ious), 6)},
        "logit_error": float(f"{np.mean(logits):.3g}"),
        "score_error": float(f"{max(scores):.3g}"),
        "native": {name: round(1000 * median(each), 1) for name, each in times.items()},
    }


def draw_masks(rows: Sequence[tuple[Any, Any, Any]], path: str) -> None:
    """Paint rows of an image, PyTorch's mask on it, the variant's, and in red where they differ.

    :param rows: of an image (S, S, 3) and the logits (M, M) of both masks.
    """
    import numpy as np
    from PIL import Image

    side = PICTURE_SIDE
    picture = Image.new("RGB", (4 * side, len(rows) * side))
    for row, (image, expected, found) in enumerate(rows):
        small = np.asarray(Image.fromarray(image).resize((side, side)), np.float32)
        masks = [
            np.asarray(Image.fromarray(logits > 0).resize((side, side)))
            for logits in (expected, found)
        ]
        panels = [small]
        for mask in masks:
            panel = small * 0.6
            panel[mask] = panel[mask] * 0.4 + np.array([40, 160, 255]) * 0.6
            panels.append(panel)
        differs = small * 0.3
        differs[masks[0] != masks[1]] = (255, 60, 40)
        panels.append(differs)
        for column, panel in enumerate(panels):
            picture.paste(Image.fromarray(panel.astype(np.uint8)), (column * side, row * side))
    picture.save(path)

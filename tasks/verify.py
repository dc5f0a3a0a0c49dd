"""Stage 4: the graphs proven against PyTorch, in onnxruntime.

First the form (onnx.checker, the client's contract, what the configuration asks of the graphs),
then the numbers: every output for one image and several prompts, one at a time and at once, and for
two images that are not square, against sam2's own `SAM2ImagePredictor`. Files of single precision
in another format are asked the same. Target: ``verify.json``, the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.clients.contract import GraphTensors
from tasks.config.schema import FP32, AttentionKind, Configuration, Model, Variant
from tasks.engine import artifacts
from tasks.engine.errors import StageError
from tasks.engine.stage import declare, describe_peak, workspace
from tasks.engine.staleness import versions
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.proof import failures, reports
from tasks.proof.failures import Failure
from tasks.proof.judgement import ONE_CLICK, judge, largest_differences, rules_of

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from doit.task import Task
    from numpy.typing import NDArray

    from tasks.clients.client import Client
    from tasks.clients.contract import MaskChoice, PromptChoice
    from tasks.inference.prompts import Prompt
    from tasks.inference.sessions import Predictions

PACKAGES = (*MODEL_PACKAGES, "onnxruntime", "onnx", "numpy")

# Of images with known masks: a few.
TRUTH_SEEDS = range(6)
TRUTH_OBJECTS = 4
# On which a model of another image size is held against its weights' own.
NATIVE_IMAGES = 4


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return declare(
        model.name,
        verify,
        [config, model],
        reads=[
            artifacts.checkpoint(config, model),
            *dict.fromkeys(
                path
                for variant in single_precision(model)
                for path in artifacts.graphs(config, model, variant).values()
            ),
            *model.architecture_files,
            *model.image_data,
        ],
        writes=[artifacts.report(config, model, "verify")],
        shared="proof",
        inputs={
            **reports.asked(config, model, "verify", FP32),
            **rules_of(config, model, FP32, "verify"),
            "contract": model.client.as_json(),
            **versions(*PACKAGES),
        },
        also_runs=[
            *([model.truth] if model.truth else []),
            *([model.images] if model.image_size else []),
        ],
    )


def single_precision(model: Model) -> list[Variant]:
    """The variants whose weights are as the checkpoint has them."""
    return list(dict.fromkeys([FP32, *(v for v in model.variants if v.precision == "fp32")]))


def verify(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: naming each figure beyond its tolerance.
    """
    asked = reports.asked(config, model, "verify", FP32)
    with workspace(config.build, task) as work:
        figures = work.run(
            "tasks.verify:measure",
            **asked,
            architecture_files=model.architecture_files,
            checkpoint=str(artifacts.checkpoint(config, model)),
            graphs=[
                {name: str(path) for name, path in artifacts.graphs(config, model, each).items()}
                for each in single_precision(model)
            ],
        )
    memory = {"peak_memory": figures.pop("peak_memory")}
    found = judge(config, model, FP32, "verify", figures)
    path = artifacts.report(config, model, "verify")
    rules = rules_of(config, model, FP32, "verify")
    reports.write(path, "verify", asked, rules, found, figures)
    if found:
        raise StageError(
            f"{path.parent} does not do what PyTorch does, and is not deployed:\n"
            + "\n".join(f"- {failure}" for failure in found)
            + f"\nReport: {path}. Log: {work.log}"
        )
    largest = largest_differences(figures["differences"])
    summary = (
        f"equals PyTorch: encoder {largest['encoder']:.1g} of largest, masks "
        f"{largest['masks']:.1g} logits, scores {largest['scores']:.1g}, "
        f"{len(figures['differences']['prompts'])} prompts"
    )
    if figures["truth"]:
        summary += f"; IoU with the truth from one click {figures['truth']['iou'][ONE_CLICK]:.3f}"
    if figures["placement"]:
        stretched = figures["placement"]["mask_iou"]
        summary += (
            f"; images that are not square: IoU with the stretched image's masks "
            f"{stretched['mean']:.3f}, worst {stretched['worst']:.3f}"
        )
    if native := figures.get("native"):
        summary += (
            f"; IoU with PyTorch's masks at {native['image_size']} pixels "
            f"{native['mask_iou']['mean']:.3f}, worst {native['mask_iou']['worst']:.3f}"
        )
    return {"summary": summary + describe_peak(memory), **memory}


def measure(
    architecture: str,
    opset: int,
    attention: AttentionKind,
    masks: MaskChoice,
    prompts: PromptChoice,
    client: str,
    truth: str | None,
    architecture_files: list[str],
    checkpoint: str,
    graphs: list[dict[str, str]],
    image_size: int | None = None,
    images: str | None = None,
) -> dict[str, Any]:
    """Compare a model's graphs with PyTorch (runs in a child process).

    :param client: whose contract it is; its name.
    :param graphs: the files of single precision by the graph's name; ONNX first, then those of
        other formats.
    :param images: the function that draws what a model of another ``image_size`` than its weights'
        is asked about.
    :returns: ``files`` and ``against``, the hashes of what was measured and against what;
        ``violations`` of the contract; the ``tensors`` found; ``differences``, see
        `sessions.differences`; the ``architecture``, recognized; ``truth``, what `truth.measure`
        finds with the images that the function of that name draws, or None; ``placement``, see
        `placement_of`; ``native``, see `compare_with_native`, or None.
    """
    import onnx

    from tasks.clients.client import named
    from tasks.clients.contract import as_json, dimensions_of
    from tasks.inference import reference, sessions
    from tasks.inference import truth as known_masks
    from tasks.inference.graph_tensors import tensors_of
    from tasks.inference.images import natural_image
    from tasks.inference.prompts import AT_ONCE, PROMPTS, answerable
    from tasks.model import load
    from tasks.proof.binding import unchanged
    from tasks.proof.judgement import violations

    loads = named(client)
    subject = {"checkpoint": checkpoint}
    for each in architecture_files:
        subject["architecture"] = each
    judged = {path: path for variant in graphs for path in variant.values()}
    with unchanged(judged) as files, unchanged(subject) as against:
        found: dict[str, GraphTensors] = {}
        broken: list[Failure] = []
        for name, path in graphs[0].items():
            onnx.checker.check_model(path, full_check=True)
            graph = onnx.load(path)
            found[name] = tensors_of(graph)
            broken += other_options(name, graph, opset, attention)
            del graph
        architecture = load.recognized(architecture, checkpoint)
        model = load.load_model(architecture, checkpoint, image_size)
        contract = loads.contract(dimensions_of(model), masks, prompts)
        broken += violations(contract, found)
        if broken:  # nothing that fits what would be fed
            return {
                "files": {Path(path).name: sha256 for path, sha256 in files.items()},
                "against": against,
                "violations": failures.as_json(broken),
                "tensors": as_json(found),
                "differences": {"features": {}, "prompts": {}},
                "architecture": architecture,
                "truth": None,
                "placement": None,
            }
        together = AT_ONCE if prompts == "many" else ()
        alone = answerable(PROMPTS, loads)
        everything = (*alone, *(prompt for group in together for prompt in group))
        image = natural_image(model.image_size)
        predictor = reference.predictor_of(model, loads.resize)
        expected = reference.predict(predictor, image, everything, masks, loads)
        asked = [sessions.PromptedImage(image, alone, expected.mask_inputs, together)]
        answers = [expected]
        stretched = []
        others = images_of_other_shapes(model.image_size, truth)
        for other in others:
            put = answerable(other.prompts, loads)
            answers.append(reference.predict(predictor, other.image, put, masks, loads))
            asked.append(sessions.PromptedImage(other.image, put, answers[-1].mask_inputs))
            if loads.resize != "stretch":
                usual = reference.predictor_of(model)
                stretched.append(reference.predict(usual, other.image, put, "multi"))
        del model, predictor
        found_by = [
            sessions.run_graphs(each["encoder"], each["decoder"], some, loads)
            for each, some in zip(graphs, [asked, *[asked[:1]] * len(graphs[1:])], strict=True)
        ]
        known = truth and known_masks.measure(
            graphs[0]["encoder"],
            graphs[0]["decoder"],
            known_masks.load(truth),
            TRUTH_SEEDS,
            TRUTH_OBJECTS,
            loads,
        )
        native = images and compare_with_native(
            graphs[0], loads, masks, architecture, checkpoint, images, known=truth is not None
        )
    labels = ["", *(f" on {other.shape}" for other in others)]
    differing = [
        about(sessions.differences(predictions, right), f"{label}{where}")
        for variant, by_image in zip(graphs, found_by, strict=True)
        for label in ([""] if variant is graphs[0] else [f" by {Path(variant['encoder']).name}"])
        for where, predictions, right in zip(labels, by_image, answers, strict=False)
    ]
    return {
        "files": {Path(path).name: sha256 for path, sha256 in files.items()},
        "against": against,
        "violations": [],
        "tensors": as_json(contract),
        "differences": together_worst(differing),
        "architecture": architecture,
        "truth": known or None,
        "placement": placement_of(others, found_by[0][1:], stretched, loads),
        "native": native or None,
    }


def compare_with_native(
    graphs: Mapping[str, str],
    client: Client,
    masks: MaskChoice,
    architecture: str,
    checkpoint: str,
    draw: str,
    known: bool,
) -> dict[str, Any]:
    """What it costs that images are of another size than the weights were trained on.

    :param graphs: of that other size, by name.
    :param draw: the function that draws images; ``known``: it is the model's own ``truth``.
    :returns: the weights' own ``image_size``; how many ``prompts`` about how many ``images``;
        ``mask_iou`` with PyTorch's masks at that size (``mean``, ``worst``); and ``truth``, the
        mean IoU with the true masks ``here`` and of the ``native`` model, or None.
    """
    import numpy as np

    from tasks.inference import reference
    from tasks.inference import truth as known_masks
    from tasks.inference.metrics import mask_iou
    from tasks.inference.preprocessing import Placement, masks_over
    from tasks.inference.prompts import answerable
    from tasks.model import load

    model = load.load_model(architecture, checkpoint)
    size = model.image_size
    predictor = reference.predictor_of(model)
    segmenter = known_masks.Segmenter(graphs["encoder"], graphs["decoder"], client)
    ious: list[float] = []
    true: dict[str, list[float]] = {"here": [], "native": []}
    for drawn in known_masks.draw_images(known_masks.load(draw), size, NATIVE_IMAGES):
        numbers = known_masks.objects_of(drawn)
        wanted = drawn.labels == numbers[len(numbers) // 2]  # what the prompts are about
        prompts = [
            each
            for each in answerable(known_masks.prompts_about(drawn), client)
            if not each.refines_mask
        ]
        expected = reference.predict(predictor, drawn.image, prompts, masks)
        segmenter.set_image(drawn.image)
        for prompt in prompts:
            answer = segmenter.predict(prompt)
            here = answer.masks[int(answer.scores.argmax())]
            logits = expected.best_mask(prompt.name)
            native = masks_over(logits, Placement(size, size, size, "stretch"))[0] > 0
            ious.append(mask_iou(here, native))
            true["here"].append(mask_iou(here, wanted))
            true["native"].append(mask_iou(native, wanted))
    return {
        "image_size": size,
        "images": NATIVE_IMAGES,
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "truth": {key: float(np.mean(each)) for key, each in true.items()} if known else None,
    }


class OtherShape(NamedTuple):
    """An image (H, W, 3) that is not square, prompts about it, and the objects that they ask for.

    ``truths``: the mask (H, W) of each prompt's object, where that is known.
    """

    shape: str
    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    truths: Mapping[str, NDArray[np.bool_]]


# Width and height of what is cut out of a square.
SHAPES = {"a 2:1 image": (1.0, 1 / 2), "a 1:3 image": (1 / 3, 1.0)}


def images_of_other_shapes(size: int, truth: str | None) -> list[OtherShape]:
    """Images that are not square and not of the input's size.

    Parts of drawn images, where a function draws some; else a seeded natural one.
    """
    from tasks.inference import images
    from tasks.inference import truth as known_masks
    from tasks.inference.prompts import PROMPTS

    side = 5 * size // 4
    found = []
    for shape, (width, height) in SHAPES.items():
        if truth is None:
            image = images.natural_image(round(side * height), round(side * width))
            found.append(OtherShape(shape, image, PROMPTS, {}))
            continue
        draw = known_masks.load(truth)
        parts = (known_masks.part_of(draw(seed, side), width, height) for seed in range(100))
        part = next((each for each in parts if known_masks.objects_of(each)), None)
        if part is None:
            raise StageError(f"{truth} draws no object in the middle of 100 images")
        prompts, truths = [], {}
        for number in known_masks.objects_of(part)[:TRUTH_OBJECTS]:
            mask = part.labels == number
            for prompt in known_masks.prompts_for(mask, str(number)):
                prompts.append(prompt)
                truths[prompt.name] = mask
        found.append(OtherShape(shape, part.image, prompts, truths))
    return found


def placement_of(
    others: Sequence[OtherShape],
    found: Sequence[Predictions],
    stretched: Sequence[Predictions],
    client: Client,
) -> dict[str, Any] | None:
    """What it costs that a client does not stretch images, as the model was trained.

    :param stretched: PyTorch's answers about the stretched images; none where the client does so.
    :returns: ``mask_iou`` with the stretched image's masks (``mean``, ``worst``), and ``truth``,
        the mean IoU with the true masks of both, where they are known; None for a client that
        stretches.
    """
    import numpy as np

    from tasks.inference.metrics import mask_iou
    from tasks.inference.preprocessing import Placement, masks_over

    if not stretched:
        return None
    ious: list[float] = []
    true: dict[str, list[float]] = {client.resize: [], "stretch": []}
    for other, own, usual in zip(others, found, stretched, strict=True):
        height, width = other.image.shape[:2]
        for prompt in other.prompts:
            if prompt.name not in own.masks:
                continue
            size = 4 * own.masks[prompt.name].shape[-1]
            masks = {
                resize: masks_over(
                    answers.best_mask(prompt.name), Placement(size, width, height, resize)
                )[0] > 0
                for resize, answers in ((client.resize, own), ("stretch", usual))
            }  # fmt: skip
            ious.append(mask_iou(*masks.values()))
            if prompt.name in other.truths:
                for resize, mask in masks.items():
                    true[resize].append(mask_iou(mask, other.truths[prompt.name]))
    return {
        "resize": client.resize,
        "prompts": len(ious),
        "mask_iou": {"mean": float(np.mean(ious)), "worst": min(ious)},
        "truth": {name: float(np.mean(values)) for name, values in true.items() if values} or None,
    }


def about(differences: dict[str, Any], where: str) -> dict[str, Any]:
    """Differences whose prompts say what they were about."""
    return {
        **differences,
        "prompts": {f"{name}{where}": each for name, each in differences["prompts"].items()},
    }


def together_worst(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """All prompts' differences, and of each feature the largest, None if one is not a number."""
    features: dict[str, float | None] = {}
    for each in found:
        for name, value in each["features"].items():
            before = features.get(name, 0.0)
            features[name] = None if before is None or value is None else max(before, value)
    prompts = {name: each for part in found for name, each in part["prompts"].items()}
    return {"features": features, "prompts": prompts}


def other_options(
    name: str, graph: onnx.ModelProto, opset: int, attention: AttentionKind
) -> list[Failure]:
    """Where a graph is of another opset or attention than the configuration asks for."""
    broken = []
    opsets = {each.domain: each.version for each in graph.opset_import}
    if opsets.get("") != opset:
        broken.append(Failure("option", opsets.get(""), opset, graph=name, tensor="opset"))
    fused = any(node.op_type == "MultiHeadAttention" for node in graph.graph.node)
    if name == "encoder" and fused != (attention == "fused"):
        is_now = "fused" if fused else "plain"
        broken.append(Failure("option", is_now, attention, graph=name, tensor="attention"))
    return broken

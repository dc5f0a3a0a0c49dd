"""Stage 4: the graphs proven against PyTorch, in onnxruntime.

First the form (onnx.checker, the tensor contract), then the numbers: every output for one image
and five prompts, against sam2's own `SAM2ImagePredictor`. Target: ``verify.json``, the report.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import checkpoint, child, simplify
from tasks.child import StageError
from tasks.configuration import Configuration, MaskChoice, Model, Tolerances
from tasks.contract import PREPROCESSING, Contract, Tensor, violations
from tasks.export import peak
from tasks.files import write_atomically
from tasks.staleness import Trace, versions

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from doit.task import Task
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_image_predictor import SAM2ImagePredictor

PACKAGES = ("onnxruntime", "onnx", "torch", "torchvision", "sam2", "numpy")
SOURCES = ("tasks/verify.py", "tasks/sam2_model.py", "tasks/contract.py")


# Of images with known masks: a few.
TRUTH_SEEDS = range(6)
TRUTH_OBJECTS = 4
ONE_CLICK = "1 click"


@dataclass(frozen=True)
class Prompt:
    """What a person could give: points, a box, a previous mask. Coordinates are 0 to 1."""

    name: str
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    previous_mask: bool = False  # refines the best mask of the first prompt


PROMPTS = (
    Prompt("one point", ((0.42, 0.55),), (1,)),
    Prompt("points", ((0.42, 0.55), (0.30, 0.62), (0.80, 0.20)), (1, 1, 0)),
    Prompt("box", box=(0.25, 0.35, 0.65, 0.75)),
    Prompt("box and point", ((0.30, 0.40),), (0,), box=(0.25, 0.35, 0.65, 0.75)),
    # Refines the best mask of the first.
    Prompt("previous mask", ((0.42, 0.55), (0.55, 0.60)), (1, 1), previous_mask=True),
)


def report_path(config: Configuration, model: Model) -> Path:
    """The report of a model."""
    return config.build / "models" / model.name / "verify.json"


def read_report(config: Configuration, model: Model) -> dict[str, Any]:
    """What ``verify`` found of a model."""
    report: dict[str, Any] = json.loads(report_path(config, model).read_text())
    return report


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return {
        "name": model.name,
        "actions": [(verify, [config, model])],
        "file_dep": [
            str(checkpoint.path(config, model)),
            *map(str, simplify.graphs(config, model)),
            *model.architecture_files,
            *model.truth_files,
            *SOURCES,
            *(["tasks/truth.py"] if model.truth else []),
        ],
        "targets": [str(report_path(config, model))],
        "uptodate": [
            Trace(
                {
                    "architecture": model.architecture,
                    "masks": model.masks,
                    **asdict(config.tolerances),
                    **({"truth_iou": model.truth_iou} if model.truth else {}),
                    **versions(*PACKAGES),
                }
            )
        ],
        "clean": True,
        "io": {"capture": False},
    }


@child.action
def verify(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Measure in a child process, judge, and write the report whichever way it went.

    :raises StageError: naming each figure beyond its tolerance.
    """
    graphs = simplify.graphs(config, model)
    log = config.build / "logs" / f"verify-{model.name}.log"
    arguments = {
        "architecture": model.architecture,
        "masks": model.masks,
        "checkpoint": str(checkpoint.path(config, model)),
        "encoder": str(graphs.encoder),
        "decoder": str(graphs.decoder),
        "truth": model.truth,
    }
    result = child.run("tasks.verify:measure", arguments, log, task.verbosity == 2)
    memory = result.pop("peak_memory")
    broken = result.pop("violations")
    failures = broken + beyond_tolerance(result["figures"], config.tolerances)
    failures += below_truth(result["truth"], model.truth_iou)
    report = {
        "architecture": model.architecture,
        "passed": not failures,
        "failures": failures,
        "tolerances": asdict(config.tolerances),
        **result,
    }
    path = report_path(config, model)
    write_atomically(path, json.dumps(report, indent=2) + "\n")
    if failures:
        raise StageError(
            f"{graphs.encoder.parent} does not do what PyTorch does, and is not deployed:\n"
            + "\n".join(f"- {failure}" for failure in failures)
            + f"\nReport: {path}. Log: {log}"
        )
    worst = worst_figures(result["figures"])
    summary = (
        f"equals PyTorch: encoder {worst['encoder']:.1g} of largest, masks {worst['masks']:.1g} "
        f"logits, scores {worst['scores']:.1g}, {len(PROMPTS)} prompts"
    )
    if result["truth"]:
        summary += f"; IoU with the truth from one click {result['truth']['iou'][ONE_CLICK]:.3f}"
    return {"summary": summary + peak({"peak_memory": memory}), "peak_memory": memory}


Figures = Mapping[str, Any]


def worst_figures(figures: Figures) -> dict[str, float]:
    """The largest difference of each kind: ``encoder``, ``masks`` and ``scores``."""
    prompts = figures["prompts"].values()
    return {
        "encoder": _worst(figures["encoder"].values()),
        "masks": _worst(prompt["masks"] for prompt in prompts),
        "scores": _worst(prompt["scores"] for prompt in prompts),
    }


def _worst(values: Iterable[float | None]) -> float:
    return max(math.inf if value is None else value for value in values)


def below_truth(found: Mapping[str, Any] | None, least: float) -> list[str]:
    """A sentence when one click segments too badly; None is a model whose truth is unknown."""
    if found is None or found["iou"][ONE_CLICK] >= least:
        return []
    iou = found["iou"][ONE_CLICK]
    return [f"IoU with the true masks from one click: {iou:.3f}, truth_iou asks for {least:g}"]


def beyond_tolerance(
    figures: Figures, tolerances: Tolerances, table: str = "[verify]"
) -> list[str]:
    """A sentence for each figure above its tolerance; None stands for "not a number".

    :param table: of the configuration, which holds the tolerances.
    """
    measured = [
        (f"encoder output {name}", "encoder_tolerance", value, tolerances.encoder)
        for name, value in figures["encoder"].items()
    ]
    for name, prompt in figures["prompts"].items():
        measured += [
            (f"masks of prompt '{name}'", "mask_tolerance", prompt["masks"], tolerances.masks),
            (f"scores of prompt '{name}'", "score_tolerance", prompt["scores"], tolerances.scores),
        ]
    return [
        f"{what}: differs by {'not a number' if value is None else f'{value:.2g}'}, "
        f"{table} {key} allows {allowed:g}"
        for what, key, value, allowed in measured
        if value is None or value > allowed
    ]


def measure(
    architecture: str,
    masks: MaskChoice,
    checkpoint: str,
    encoder: str,
    decoder: str,
    truth: str | None = None,
) -> dict[str, Any]:
    """Compare both graphs with PyTorch (runs in a child process).

    :returns: ``violations`` of the contract, the ``tensors`` found and ``figures``: for each
        encoder output the largest difference relative to its largest magnitude, for each
        prompt the largest difference of mask logits and of scores. Figures have two
        significant digits: more would change from machine to machine. ``truth`` is what
        `truth.measure` finds with the images that the function of that name draws, or None.
    """
    import onnx

    from tasks import sam2_model
    from tasks import truth as known_masks

    for path in (encoder, decoder):
        onnx.checker.check_model(path, full_check=True)
    tensors = {"encoder": tensors_of(encoder), "decoder": tensors_of(decoder)}
    model = sam2_model.load(architecture, checkpoint)
    broken = _contract_violations(sam2_model.contract_of(model, masks), tensors)
    image = natural_image(model.image_size)
    expected = reference(predictor_of(model), image, PROMPTS, masks)
    del model
    (found,) = run_graphs(encoder, decoder, [Case(image, PROMPTS, expected.mask_inputs)])
    return {
        "violations": broken,
        "tensors": as_json(tensors),
        "figures": differences(found, expected),
        "truth": truth
        and known_masks.measure(
            encoder, decoder, known_masks.load(truth), TRUTH_SEEDS, TRUTH_OBJECTS
        ),
    }


def as_json(tensors: Mapping[str, Mapping[str, list[Tensor]]]) -> dict[str, Any]:
    """Tensors as reports and manifests have them."""
    return {
        part: {kind: [asdict(tensor) for tensor in found] for kind, found in kinds.items()}
        for part, kinds in tensors.items()
    }


def tensors_of(path: str) -> dict[str, list[Tensor]]:
    """The ``inputs`` and ``outputs`` of a graph file."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return {"inputs": _tensors(graph.input), "outputs": _tensors(graph.output)}


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> list[Tensor]:
    import onnx

    found = []
    for value in values:
        tensor = value.type.tensor_type
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
            for dim in tensor.shape.dim
        )
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
        found.append(Tensor(value.name, dtype, shape))
    return found


def _contract_violations(
    expected: Contract, found: Mapping[str, Mapping[str, list[Tensor]]]
) -> list[str]:
    return [
        *violations("encoder", expected.encoder_inputs, found["encoder"]["inputs"]),
        *violations("encoder", expected.encoder_outputs, found["encoder"]["outputs"]),
        *violations("decoder", expected.decoder_inputs, found["decoder"]["inputs"]),
        *violations("decoder", expected.decoder_outputs, found["decoder"]["outputs"]),
    ]


def natural_image(size: int, seed: int = 0) -> NDArray[np.uint8]:
    """A seeded RGB image (size, size, 3): shaded bodies on a ground with a natural spectrum.

    The amplitude of natural images falls off about as 1/frequency (Field, 1987).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1 / size
    image = np.empty((size, size, 3))
    for channel in range(3):
        spectrum = np.fft.fft2(random.standard_normal((size, size))) / frequency
        texture = np.fft.ifft2(spectrum).real
        image[..., channel] = 110 + 25 * texture / texture.std()
    y, x = np.mgrid[0:size, 0:size] / size
    for center_x, center_y, radius in ((0.42, 0.55, 0.17), (0.75, 0.3, 0.1), (0.15, 0.2, 0.07)):
        distance = np.hypot(x - center_x, (y - center_y) * 1.2) / radius
        shade = np.clip(1.3 - distance, 0, 1)[..., None]
        color = random.uniform(60, 230, 3)
        image = np.where(distance[..., None] < 1, color * (0.6 + 0.4 * shade), image)
    return np.clip(image + random.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


@dataclass
class Answers:
    """What one implementation makes of an image, and of prompts by their name.

    ``features`` are the encoder's outputs; ``masks`` logits (K, M, M), ``scores`` (K,),
    ``mask_inputs`` (1, M, M) of those prompts that refine a mask.
    """

    features: dict[str, NDArray[np.float32]]
    masks: dict[str, NDArray[np.float32]]
    scores: dict[str, NDArray[np.float32]]
    mask_inputs: dict[str, NDArray[np.float32]]


def predictor_of(model: SAM2Base) -> SAM2ImagePredictor:
    """sam2's own predictor; its sizes of the feature maps are those of 1024 pixels, unless told."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    grid = model.image_size // model.backbone_stride
    predictor._bb_feat_sizes = [(grid * scale, grid * scale) for scale in (4, 2, 1)]
    return predictor


def reference(
    predictor: SAM2ImagePredictor,
    image: NDArray[np.uint8],
    prompts: Sequence[Prompt],
    choice: MaskChoice,
) -> Answers:
    """sam2's answers, made to return the masks that the graph does."""
    predictor.set_image(image)
    features = {
        "high_res_feats_0": predictor._features["high_res_feats"][0].numpy(),
        "high_res_feats_1": predictor._features["high_res_feats"][1].numpy(),
        "image_embed": predictor._features["image_embed"].numpy(),
    }
    answers = Answers(features, {}, {}, {})
    for prompt in prompts:
        if prompt.previous_mask:
            first = prompts[0].name
            best = answers.scores[first].argmax()
            answers.mask_inputs[prompt.name] = answers.masks[first][best : best + 1]
        masks, scores = _predict(predictor, prompt, image.shape[0], answers, choice)
        answers.masks[prompt.name], answers.scores[prompt.name] = masks, scores
    return answers


def _predict(
    predictor: SAM2ImagePredictor,
    prompt: Prompt,
    size: int,
    answers: Answers,
    choice: MaskChoice,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """sam2's own answer: low-resolution mask logits (K, M, M) and scores (K,)."""
    import numpy as np

    _, scores, masks = predictor.predict(
        point_coords=np.array(prompt.points) * size if prompt.points else None,
        point_labels=np.array(prompt.labels) if prompt.points else None,
        box=np.array(prompt.box) * size if prompt.box else None,
        mask_input=answers.mask_inputs.get(prompt.name),
        multimask_output=choice != "single",
        return_logits=True,
    )
    if choice == "best":
        best = scores.argmax()
        masks, scores = masks[best : best + 1], scores[best : best + 1]
    return masks, scores


def decoder_prompt(prompt: Prompt, size: int) -> dict[str, NDArray[np.float32]]:
    """``point_coords (1, N, 2)`` in pixels and ``point_labels (1, N)``; a box's corners first."""
    import numpy as np

    corners = np.reshape(prompt.box or (), (-1, 2))
    points = np.reshape(prompt.points, (-1, 2))
    coords = np.concatenate([corners, points]) * size
    labels = [2, 3][: len(corners)] + list(prompt.labels)
    return {
        "point_coords": coords[None].astype(np.float32),
        "point_labels": np.array([labels], np.float32),
    }


def preprocess(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """An RGB image (S, S, 3) of the encoder's input size as its input (1, 3, S, S)."""
    import numpy as np

    mean, std = np.array(PREPROCESSING["mean"]), np.array(PREPROCESSING["std"])
    normalized: NDArray[np.float32] = ((image - mean) / std).astype(np.float32)
    return normalized.transpose(2, 0, 1)[None]


class Case(NamedTuple):
    """An image (S, S, 3), prompts, and the masks (1, M, M) that some of them refine."""

    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    mask_inputs: Mapping[str, NDArray[np.float32]]


def run_graphs(
    encoder: str, decoder: str, cases: Sequence[Case], times: dict[str, list[float]] | None = None
) -> list[Answers]:
    """What both graphs make of images and prompts, in onnxruntime on the CPU.

    :param times: gets the seconds of each creation and run: ``encoder_create_ms`` and so on.
    """
    import onnxruntime

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = work(*arguments)
        if times is not None:
            times.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def session(path: str) -> InferenceSession:
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    graph = timed("encoder_create_ms", session, encoder)
    names = [output.name for output in graph.get_outputs()]
    encoded = []
    for case in cases:
        inputs = {"image": preprocess(case.image)}
        outputs = timed("encoder_run_ms", graph.run, None, inputs)
        encoded.append(dict(zip(names, outputs, strict=True)))
    del graph

    graph = timed("decoder_create_ms", session, decoder)
    found = []
    for case, features in zip(cases, encoded, strict=True):
        answers = Answers(features, {}, {}, dict(case.mask_inputs))
        for prompt in case.prompts:
            inputs = {**features, **decoder_inputs(case, prompt, features)}
            results = timed("decoder_run_ms", graph.run, ["masks", "iou_predictions"], inputs)
            answers.masks[prompt.name], answers.scores[prompt.name] = (each[0] for each in results)
        found.append(answers)
    return found


def decoder_inputs(
    case: Case, prompt: Prompt, features: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """The decoder's inputs besides the features."""
    import numpy as np

    previous = case.mask_inputs.get(prompt.name)
    side = features["high_res_feats_0"].shape[2]
    blank = np.zeros((1, 1, side, side), np.float32)
    return {
        **decoder_prompt(prompt, case.image.shape[0]),
        "mask_input": blank if previous is None else previous[None],
        "has_mask_input": np.array([previous is not None], np.float32),
    }


def differences(found: Answers, expected: Answers) -> dict[str, Any]:
    """The largest differences: relative to each encoder output's magnitude, and absolute in
    the mask logits and scores of each prompt that was answered."""
    import numpy as np

    return {
        "encoder": {
            name: _figure(np.abs(values - expected.features[name]).max() / _largest(expected, name))
            for name, values in found.features.items()
        },
        "prompts": {
            name: {
                "masks": _figure(np.abs(found.masks[name] - expected.masks[name]).max()),
                "scores": _figure(np.abs(found.scores[name] - expected.scores[name]).max()),
            }
            for name in found.masks
        },
    }


def _largest(answers: Answers, feature: str) -> Any:
    import numpy as np

    return np.abs(answers.features[feature]).max()


def _figure(value: Any) -> float | None:
    """Two significant digits; None for what is not a number."""
    return float(f"{value:.2g}") if math.isfinite(value) else None

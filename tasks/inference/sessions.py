"""Runs encoder and decoder in onnxruntime on the CPU, on images and prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from tasks.clients.client import Client, GraphFile
from tasks.inference.checks import Figure, largest, largest_difference
from tasks.inference.graph_file import read_graph
from tasks.inference.half_precision import computes_in_half
from tasks.inference.half_rounding import as_rounded_on_a_gpu
from tasks.inference.preprocessing import Floats, Placement, masks_over, preprocess
from tasks.inference.prompts import Prompt, prompt_tensors
from tasks.system.errors import StageError


@dataclass
class Predictions:
    """An implementation's outputs for an image, and for prompts by name.

    ``features`` are the encoder's outputs; ``masks`` logits (K, M, M), ``scores`` (K,),
    ``mask_inputs`` (1, M, M) of prompts that refine a mask; ``full_masks`` logits (K, H, W) at the
    image's size, if the implementation returns them.
    """

    features: dict[str, Floats] = field(default_factory=dict)
    masks: dict[str, Floats] = field(default_factory=dict)
    scores: dict[str, Floats] = field(default_factory=dict)
    mask_inputs: dict[str, Floats] = field(default_factory=dict)
    full_masks: dict[str, Floats] = field(default_factory=dict)

    def add(self, prompt: str, masks: Floats, scores: Floats) -> None:
        """Store the answer to a prompt."""
        self.masks[prompt], self.scores[prompt] = masks, scores

    def best(self, prompt: str) -> int:
        """The index of the mask with the highest score."""
        return int(self.scores[prompt].argmax())

    def best_mask(self, prompt: str) -> Floats:
        """The logits (1, M, M) of the mask with the highest score."""
        index = self.best(prompt)
        return self.masks[prompt][index : index + 1]

    def best_mask_over(self, prompt: str, place: Placement) -> NDArray[np.bool_]:
        """The mask with the highest score, over the image (H, W)."""
        return np.asarray(masks_over(self.best_mask(prompt), place)[0] > 0)


# Pixels of the encoder's input for each place of the embedding, each way, in every family.
EMBEDDING_STRIDE = 16


class PromptedImage(NamedTuple):
    """An image (H, W, 3), prompts, and the masks (1, M, M) that some of them refine.

    ``at_once``: further prompts, in groups that share a run. For a decoder without an encoder,
    ``features`` are PyTorch's features of the image.
    """

    image: NDArray[np.uint8]
    prompts: Sequence[Prompt]
    mask_inputs: Mapping[str, Floats]
    at_once: Sequence[Sequence[Prompt]] = ()
    features: Mapping[str, Floats] | None = None

    def place(self, embedding: Floats, client: Client) -> Placement:
        """Where the image lies in the input from which an embedding (1, C, T, T) was made."""
        height, width = self.image.shape[:2]
        return Placement(EMBEDDING_STRIDE * embedding.shape[2], width, height, client.resize)


def create_session(path: str, spinning: bool = False) -> InferenceSession:
    """A session on the CPU; the file's suffix determines its format.

    A graph that computes in half precision answers as on a GPU, and takes twice as long.

    :param spinning: whether waiting threads spin, as by default in onnxruntime. That gains some
        3 % on an idle machine, and takes twice as long on a busy one.
    :raises StageError: when the file does not hold its whole graph.
    """
    content: str | bytes = path
    if path.endswith(".onnx"):
        model = read_graph(path)
        if computes_in_half(model):
            as_rounded_on_a_gpu(model)
            content = model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_session(
    session: InferenceSession, feeds: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The outputs of a run, by name.

    :raises StageError: when the graph does not run, or the shape of an output differs from its
        declaration, about which onnxruntime only warns.
    """
    declared = session.get_outputs()
    try:
        outputs = session.run([each.name for each in declared], dict(feeds))
    except Exception as error:  # onnxruntime's errors have no common class
        shapes = ", ".join(f"{name} {values.shape}" for name, values in feeds.items())
        raise StageError(f"onnxruntime cannot run the graph with {shapes}: {error}") from error
    for tensor, values in zip(declared, outputs, strict=True):
        fits = len(tensor.shape) == values.ndim and all(
            size == actual or not isinstance(size, int)
            for size, actual in zip(tensor.shape, values.shape, strict=True)
        )
        if not fits:
            raise StageError(
                f"output {tensor.name}: expected shape {tuple(tensor.shape)}, as its graph "
                f"declares, got {values.shape}. The file is wrong; build it again."
            )
    return {tensor.name: values for tensor, values in zip(declared, outputs, strict=True)}


class Encoder:
    """The encoder's graph."""

    def __init__(self, path: str, client: Client, spinning: bool = False) -> None:
        self._session = create_session(path, spinning)
        self._client = client
        self.size = max(self._session.get_inputs()[0].shape)

    def place(self, image: NDArray[np.uint8]) -> Placement:
        """Where the client places an image (H, W, 3) in the input."""
        height, width = image.shape[:2]
        return Placement(self.size, width, height, self._client.resize)

    def run(self, image: NDArray[np.uint8]) -> dict[str, Floats]:
        """The features of an image (H, W, 3), by role."""
        graph = self._client.encoder
        pixels = preprocess(image, self.place(image))
        outputs = run_session(self._session, {graph.inputs["image"]: pixels})
        return {role: outputs[name] for role, name in graph.outputs.items()}


class Decoder:
    """The decoder's graph."""

    def __init__(self, path: str, client: Client, spinning: bool = False) -> None:
        self._session = create_session(path, spinning)
        self._client = client
        self._inputs = {each.name: each for each in self._session.get_inputs()}

    def run(
        self,
        features: Mapping[str, Floats],
        prompts: Sequence[Prompt],
        place: Placement,
        masks: Floats | None = None,
        masks_count: bool = True,
    ) -> dict[str, NDArray[Any]]:
        """Run the decoder with some prompts; its outputs by role, see `masks_of`.

        :param masks: the logits (P, M, M) of the masks that the prompts refine, or (1, M, M) of
            one mask that they all refine.
        :param masks_count: false to feed masks with a ``has_mask_input`` of 0.
        """
        side = 4 * features["image_embed"].shape[2]  # of masks, in every family
        values: dict[str, NDArray[Any]] = {
            **features,
            **prompt_tensors(prompts, place, self._client),
            "mask_input": np.zeros((1, 1, side, side)) if masks is None else masks[:, None],
            "has_mask_input": np.array([masks is not None and masks_count], np.float32),
            "orig_im_size": np.array(place.full_size, np.int64),
        }
        feeds = {
            name: self._as_input(name, values[role])
            for role, name in self._client.decoder.inputs.items()
        }
        outputs = run_session(self._session, feeds)
        return {role: outputs[name] for role, name in self._client.decoder.outputs.items()}

    def _as_input(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Values in an input's type and number of dimensions."""
        expected = self._inputs[name]
        missing = len(expected.shape) - values.ndim
        dtype = "int64" if expected.type == "tensor(int64)" else "float32"
        shaped: NDArray[Any] = values.reshape((1,) * missing + values.shape).astype(dtype)
        if 0 in shaped.shape and missing and name == self._client.decoder.inputs["point_coords"]:
            shaped = shaped[:, :1]  # no points: transformers.js feeds them for one prompt
        return shaped


def masks_of(outputs: Mapping[str, NDArray[Any]], prompt: int = 0) -> tuple[Floats, Floats]:
    """Mask logits (K, M, M) and scores (K,) of one of the prompts of a run.

    :param outputs: the result of `Decoder.run`.
    """
    masks = outputs.get("low_res_masks", outputs["masks"])
    scores = outputs["iou_predictions"]
    count, side = scores.shape[-1], masks.shape[-1]
    return masks.reshape(-1, count, side, side)[prompt], scores.reshape(-1, count)[prompt]


def _mask_inputs(prompts: Sequence[Prompt], masks: Mapping[str, Floats]) -> Floats | None:
    """The masks (P, M, M) that a run's prompts refine, or (1, M, M) if all refine the same."""
    if prompts[0].refines is None:
        return None
    if len({each.refines for each in prompts}) == 1:
        return masks[prompts[0].name]
    return np.concatenate([masks[each.name] for each in prompts])


def run_graphs(
    graphs: Mapping[str, str], images: Sequence[PromptedImage], client: Client
) -> list[Predictions]:
    """Run both graphs on images and prompts, with one graph in memory at a time.

    :param graphs: the files by name. Without an encoder, the images must have features, and the
        answers have none.
    """
    features = [each.features or {} for each in images]
    if "encoder" in graphs:
        encoding = Encoder(graphs["encoder"], client)
        features = [encoding.run(each.image) for each in images]
        del encoding
    decoding = Decoder(graphs["decoder"], client)
    answers = []
    for prompted, encoded in zip(images, features, strict=True):
        place = prompted.place(encoded["image_embed"], client)
        own = dict(encoded) if "encoder" in graphs else {}
        predictions = Predictions(own, mask_inputs=dict(prompted.mask_inputs))
        for prompts in (*((each,) for each in prompted.prompts), *prompted.at_once):
            answer = decoding.run(
                encoded,
                prompts,
                place,
                _mask_inputs(prompts, prompted.mask_inputs),
                prompts[0].mask_counts,
            )
            for number, prompt in enumerate(prompts):
                predictions.add(prompt.name, *masks_of(answer, number))
            if "low_res_masks" in answer:
                predictions.full_masks[prompts[0].name] = answer["masks"][0]
        answers.append(predictions)
    return answers


def differences(actual: Predictions, expected: Predictions) -> dict[str, Any]:
    """The largest differences; None if one is not a number.

    :returns: ``features``: relative to each encoder output's largest magnitude; ``prompts``: for
        each answered prompt the differences of ``masks`` (logits) and ``scores``.
    """
    features = {}
    for name, values in actual.features.items():
        magnitude = float(np.abs(expected.features[name]).max())
        difference = largest_difference(values, expected.features[name])
        features[name] = difference / magnitude if difference and magnitude else difference
    prompts: dict[str, dict[str, Figure]] = {}
    for name in actual.masks:
        pairs = [(actual.masks[name], expected.masks[name])]
        if name in actual.full_masks:
            pairs.append((actual.full_masks[name], expected.full_masks[name]))
        prompts[name] = {
            "masks": largest(largest_difference(*pair) for pair in pairs),
            "scores": largest_difference(actual.scores[name], expected.scores[name]),
        }
    return {"features": features, "prompts": prompts}


def run_by_name(
    graphs: Mapping[str, str], renamed: Mapping[str, GraphFile] | None = None
) -> Callable[[str, Mapping[str, NDArray[Any]]], dict[str, Floats]]:
    """Makes a function that runs graphs on tensors by role, for a tracker.

    Each graph is loaded when it first runs. Feeds without an input in the graph are ignored.

    :param graphs: the file of each graph, by name.
    :param renamed: the graphs whose tensors are not named after their roles.
    """
    sessions: dict[str, InferenceSession] = {}

    def run(graph: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Floats]:
        if graph not in sessions:
            sessions[graph] = create_session(graphs[graph])
        session = sessions[graph]
        roles: dict[str, str] = {}
        if renamed and graph in renamed:
            names = (*renamed[graph].inputs.items(), *renamed[graph].outputs.items())
            roles = {name: role for role, name in names}
        inputs, outputs = (
            {roles.get(each.name, each.name): each.name for each in values}
            for values in (session.get_inputs(), session.get_outputs())
        )
        values = run_session(session, {name: feeds[role] for role, name in inputs.items()})
        return {role: values[name] for role, name in outputs.items()}

    return run

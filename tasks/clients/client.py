"""A client is a program that loads a model's files; a `Client` describes what it expects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from tasks.clients.contract import (
    CANVAS_HEIGHT,
    FEATURES,
    POINT_LABELS,
    PREPROCESSING,
    Contract,
    Dimensions,
    Format,
    GraphTensors,
    Interface,
    Layout,
    MaskChoice,
    Precision,
    PromptChoice,
    Resize,
    Tensor,
    renamed,
    tensor,
    traced_contract,
)
from tasks.clients.runtime import RuntimePath

# The parts that a prompt, or several prompts of one run, can have.
PromptPart = Literal[
    "point", "box", "mask", "padding label", "corner label", "prompts of different lengths"
]

# Makes the files that a client reads beside the graphs, by file name, from the manifest.
Documents = Callable[[Mapping[str, Any]], Mapping[str, str]]

# A graph's "inputs" and "outputs", in order, each as a pair of role and name.
TensorNames = dict[str, list[list[str]]]


def no_documents(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Most clients read nothing but the graphs."""
    return {}


@dataclass(frozen=True)
class GraphFile:
    """A graph in a client's folder: its file without suffix, and tensor names by role, in order.

    ``formats`` are the suffixes that the client can load; variants in another format are loaded as
    ONNX.
    """

    file: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    formats: tuple[Format, ...] = ("onnx", "ort")


def same(*roles: str) -> dict[str, str]:
    """Names for tensors that are named after their roles."""
    return {role: role for role in roles}


@dataclass(frozen=True)
class Client:
    """What a program expects of a model.

    A program that reads several layouts has one client for each. ``version``: the program's version
    that this value describes. ``masks`` and ``prompts``: the kinds of decoder that it can use, the
    default first. ``formats``: the file formats that the build makes by default; ``loads``: all
    that the client can load. ``padding_point``: the client appends a point (0, 0) with label -1 to
    a prompt without a box. ``never_sends``: parts that its prompts never have, with the reason; the
    proofs leave them out. ``page``: the page that proves files in a browser, loading them as the
    client does. ``library``: the Hugging Face hub's name for the library that loads the files.
    ``folder_prefix``: the start of its folder's name. ``image_sizes``: the only sizes that the
    client accepts, if it is limited to some. ``graphs``: the graphs that it loads; a client without
    an encoder gets embeddings from elsewhere. ``paths``: its page's paths through onnxruntime-web,
    one for each provider, WASM first. ``refused``: precisions that it cannot run, with the reason.
    ``wasm_alone``: it uses no WebGPU and only one thread, because its page is not isolated.
    """

    name: str
    version: str
    encoder: GraphFile
    decoder: GraphFile
    layout: Layout = "sam2"
    interface: Interface = "points"
    masks: tuple[MaskChoice, ...] = ("multi", "ranked", "best", "single")
    prompts: tuple[PromptChoice, ...] = ("many", "one")
    resize: Resize = "stretch"
    formats: tuple[Format, ...] = ("onnx",)
    loads: tuple[Format, ...] = ("onnx", "ort")
    padding_point: bool = False
    never_sends: Mapping[PromptPart, str] = field(default_factory=dict, compare=False)
    page: str = "proof/check.html"
    library: str = "onnx"
    folder_prefix: str = ""
    image_sizes: tuple[int, ...] = ()
    graphs: tuple[str, ...] = ("encoder", "decoder")
    refused: Mapping[Precision, str] = field(default_factory=dict, compare=False)
    paths: tuple[RuntimePath, ...] = (RuntimePath("wasm", "wasm"), RuntimePath("webgpu", "webgpu"))
    wasm_alone: bool = False
    documents: Documents = field(default=no_documents, compare=False)

    @property
    def key(self) -> str:
        """A unique key among all clients, including other clients of the same program."""
        return self.name if self.layout == "sam2" else f"{self.name} ({self.layout})"

    @property
    def encodes(self) -> bool:
        """Whether the client loads an encoder."""
        return "encoder" in self.graphs

    @property
    def documents_source(self) -> str:
        """The function that makes the client's documents, as ``module:function``."""
        return f"{self.documents.__module__}:{self.documents.__qualname__}"

    def graph(self, name: str) -> GraphFile:
        """A graph by name: ``encoder``, ``decoder``, or a tracking graph, beside the decoder."""
        if name == "encoder":
            return self.encoder
        if name == "decoder":
            return self.decoder
        folder, slash, _ = self.decoder.file.rpartition("/")
        return GraphFile(f"{folder}{slash}{name}", {}, {}, formats=("onnx",))

    def contract(
        self, dimensions: Dimensions, masks: MaskChoice, prompts: PromptChoice
    ) -> Contract:
        """The graphs' tensors for an architecture, with the client's names in its order."""
        traced = dict(traced_contract(dimensions, self.interface, masks, prompts))
        if self.resize == "canvas":
            size = dimensions.image_size
            canvas = tensor("image", round(size * CANVAS_HEIGHT), size, 3)
            traced["encoder"] = replace(traced["encoder"], inputs=(canvas,))
        return {
            name: GraphTensors(
                renamed(tensors.inputs, self.graph(name).inputs),
                renamed(tensors.outputs, self.graph(name).outputs),
            )
            for name, tensors in traced.items()
            if name in self.graphs
        }

    @cached_property
    def renamed_graphs(self) -> frozenset[str]:
        """The graphs whose names or order in the client differ from the traced ones."""
        channels = (1, 1) if self.layout == "sam2" else ()
        any_size = Dimensions(image_size=16, embed_dim=1, feature_channels=channels, stride=16)
        traced = traced_contract(any_size, self.interface, "multi", "many")
        return frozenset(
            graph
            for graph, tensors in traced.items()
            for own, roles in zip(self.names(graph).values(), tensors.names(), strict=True)
            if own != [[role, role] for role in roles]
        )

    def with_roles(self, graph: str, tensors: GraphTensors) -> dict[str, Any]:
        """The inputs and outputs read from a graph's file, each with its role."""
        file = self.graph(graph)
        roles = {name: role for role, name in (*file.inputs.items(), *file.outputs.items())}

        def with_role(tensor: Tensor) -> dict[str, Any]:
            return {**asdict(tensor), "role": roles.get(tensor.name, "")}

        return {
            "inputs": list(map(with_role, tensors.inputs)),
            "outputs": list(map(with_role, tensors.outputs)),
        }

    def names(self, graph: str) -> TensorNames:
        """The roles and names of a graph's tensors; an image on a canvas has role ``canvas``."""
        file, placed = self.graph(graph), {"image": "canvas"} if self.resize == "canvas" else {}
        return {
            "inputs": [[placed.get(role, role), name] for role, name in file.inputs.items()],
            "outputs": [list(pair) for pair in file.outputs.items()],
        }

    def as_json(self) -> dict[str, Any]:
        """The part that decides how the client's graphs are fed and read."""
        return {
            "name": self.name,
            "encoder": self.names("encoder"),
            "decoder": self.names("decoder"),
            "interface": self.interface,
            "resize": self.resize,
            "padding_point": self.padding_point,
            "page": self.page,
            "graphs": list(self.graphs),
            "paths": [asdict(path) for path in self.paths],
        }


def with_one_map(client: Client) -> Client:
    """The same program's client for SAM 2-like models without high-resolution features.

    The program must feed the encoder's outputs to the decoder by name.
    """

    def kept(file: GraphFile) -> GraphFile:
        inputs, outputs = (
            {role: name for role, name in names.items() if role not in FEATURES[:2]}
            for names in (file.inputs, file.outputs)
        )
        return replace(file, inputs=inputs, outputs=outputs)

    encoder, decoder = kept(client.encoder), kept(client.decoder)
    return replace(client, layout="sam2, one map", encoder=encoder, decoder=decoder)


SAMEXPORTER_ENCODER = GraphFile("encoder", same("image"), same(*FEATURES))
SAMEXPORTER_DECODER = GraphFile(
    "decoder",
    same("image_embed", "high_res_feats_0", "high_res_feats_1")
    | same("point_coords", "point_labels", "mask_input", "has_mask_input"),
    same("masks", "iou_predictions"),
)


# Why a client without a GPU refuses the precision "half".
ON_THE_CPU = "it runs on the CPU, which computes in single precision"

# What no client sends to SAM 1.
SAM_NEVER_SENDS: Mapping[PromptPart, str] = {
    "corner label": "SAM 1 takes two corners, as a box, but never a single corner"
}

# The graphs of segment-anything's own export of SAM 1, which clients feed by name.
META_ENCODER = GraphFile(
    "encoder", {"image": "input_image"}, {"image_embed": "image_embeddings"}, ("onnx",)
)
META_DECODER = GraphFile(
    "decoder",
    {"image_embed": "image_embeddings"}
    | same("point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"),
    same("masks", "iou_predictions", "low_res_masks"),
    ("onnx",),
)


# A manifest's preprocessing for an encoder that takes a canvas: the graph itself normalizes.
ON_CANVAS = {"layout": "HWC", "mean": [0, 0, 0], "std": [1, 1, 1], "padding": "black"}


def description(
    client: Client,
    masks: MaskChoice,
    prompts: PromptChoice,
    files: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> dict[str, Any]:
    """The part of a manifest that a consumer needs to run the files.

    :param files: each file's size, sha256 and the runtimes that it needs, by file name.
    :param tensors: ``inputs`` and ``outputs`` of each graph, each with a `Tensor`'s fields.
    :param names: the name of each graph's file.
    """
    return {
        "client": client.name,
        "files": files,
        **{graph: {"file": name, **tensors[graph]} for graph, name in names.items()},
        "preprocessing": {
            **PREPROCESSING,
            "resize": client.resize,
            "padding": None if client.resize == "stretch" else "zero, after normalization",
            **(ON_CANVAS if client.resize == "canvas" else {}),
            "point_labels": dict(POINT_LABELS),
        },
        "prompts": {
            "at_once": prompts,
            "padding_point": client.padding_point,
            "mask_threshold": 0,
            **_prompting(client.interface),
        },
        "masks": {
            "choice": masks,
            "values": "logits; inside where above mask_threshold",
            "pixels_per_cell": _pixels_per_cell(client, tensors),
        },
    }


def _prompting(interface: Interface) -> dict[str, str]:
    """How to feed a prompt, in sentences."""
    coordinates = "x, y in pixels of the encoder's input"
    if interface == "points and boxes":
        box = "x0, y0, x1, y1 in the input of boxes: top left before bottom right"
        return {"coordinates": coordinates, "box": box}
    return {
        "coordinates": coordinates,
        "box": "two points before all others, top left before bottom right",
        "without_mask": "zeros for mask_input, 0 for has_mask_input",
        "with_mask": "the logits of a mask as the decoder gave them, 1 for has_mask_input",
    }


def _pixels_per_cell(client: Client, tensors: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Pixels of the encoder's input in a mask's cell; None if masks have the image's size."""
    if "orig_im_size" in client.decoder.inputs:
        return None
    (image,) = tensors["encoder"]["inputs"]
    masks = next(each for each in tensors["decoder"]["outputs"] if each["role"] == "masks")
    return int(image["shape"][-1] // masks["shape"][-1])

"""A client is a program that loads a model's files; what it expects of them is a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

from tasks.clients.contract import (
    FEATURES,
    POINT_LABELS,
    PREPROCESSING,
    Contract,
    Dimensions,
    Format,
    GraphTensors,
    Interface,
    MaskChoice,
    PromptChoice,
    Resize,
    renamed,
    traced,
)

# What a prompt, or several of one run, may consist of beside real points and boxes.
PromptPart = Literal["mask", "padding label", "corner label", "prompts of different lengths"]

# What a client reads beside the graphs, by file name, made from the manifest.
Documents = Callable[[Mapping[str, Any]], Mapping[str, str]]


def no_documents(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Most clients read nothing but the graphs."""
    return {}


@dataclass(frozen=True)
class GraphFile:
    """A graph as a client knows it: its file without an ending, and the names of its tensors.

    ``inputs`` and ``outputs`` are names by role, in the client's order. ``formats`` are the
    endings that it can load it with; where a variant has another, it loads ``.onnx``.
    """

    file: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    formats: tuple[Format, ...] = ("onnx", "ort")


def same(*roles: str) -> dict[str, str]:
    """Tensors that are named after their roles."""
    return {role: role for role in roles}


@dataclass(frozen=True)
class Client:
    """What a program expects of a model.

    ``masks`` and ``prompts`` are what its decoder may be, the first by default; ``formats`` the
    kinds of files that are made for it by default, of those it ``loads``. ``padding_point``: it
    appends a point (0, 0) of label -1 where a prompt has no box. ``never_sends`` has what no prompt
    of it consists of, and why: the proofs leave that out. ``page`` proves files in a
    browser as the client loads them. ``library`` is what the Hugging Face hub calls what loads
    them. ``folder_prefix`` is what the name of its folder must begin with, and ``image_sizes`` are
    the only ones that it takes, where it insists. ``version`` is that of the program from which
    this was read.
    """

    name: str
    version: str
    encoder: GraphFile
    decoder: GraphFile
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
    documents: Documents = field(default=no_documents, compare=False)

    @property
    def documents_source(self) -> str:
        """Where the code of its documents is, as ``module:function``."""
        return f"{self.documents.__module__}:{self.documents.__qualname__}"

    def graph(self, name: str) -> GraphFile:
        """One of its graphs: ``encoder``, ``decoder``, or one that tracks, beside the decoder."""
        if name not in ("encoder", "decoder"):
            place = self.decoder.file.rpartition("/")
            return GraphFile(f"{place[0]}{place[1]}{name}", {}, {}, formats=("onnx",))
        return self.encoder if name == "encoder" else self.decoder

    def contract(self, of: Dimensions, masks: MaskChoice, prompts: PromptChoice) -> Contract:
        """The tensors of its graphs for an architecture, under its names and in its order."""
        found = traced(of, self.interface, masks, prompts)
        return {
            name: GraphTensors(
                renamed(tensors.inputs, self.graph(name).inputs),
                renamed(tensors.outputs, self.graph(name).outputs),
            )
            for name, tensors in found.items()
        }

    def renames(self, name: str) -> bool:
        """Whether one of its graphs has other names or another order than as it is traced."""
        return name in self._renamed

    @cached_property
    def _renamed(self) -> set[str]:
        return {
            name
            for name, as_traced in _TRACED[self.interface].items()
            for told in (self.graph(name),)
            if (list(told.inputs.items()), list(told.outputs.items())) != as_traced
        }

    def with_roles(self, graph: str, tensors: GraphTensors) -> dict[str, Any]:
        """Inputs and outputs that were read from a graph's file, each with its role."""
        told = self.graph(graph)
        roles = {name: role for role, name in (*told.inputs.items(), *told.outputs.items())}
        return {
            kind: [{**asdict(each), "role": roles.get(each.name, "")} for each in values]
            for kind, values in (("inputs", tensors.inputs), ("outputs", tensors.outputs))
        }

    def names(self, graph: str) -> dict[str, list[list[str]]]:
        """The roles and names of a graph's ``inputs`` and ``outputs``, in order."""
        told = self.graph(graph)
        return {
            "inputs": [list(each) for each in told.inputs.items()],
            "outputs": [list(each) for each in told.outputs.items()],
        }

    def as_json(self) -> dict[str, Any]:
        """What of it decides how its graphs are fed and read."""
        return {
            "name": self.name,
            "encoder": self.names("encoder"),
            "decoder": self.names("decoder"),
            "interface": self.interface,
            "resize": self.resize,
            "padding_point": self.padding_point,
            "page": self.page,
        }


def named(name: str) -> Client:
    """One of the clients that there are (`tasks.clients.known`)."""
    from tasks.clients.known import CLIENTS

    found = CLIENTS[name]
    assert isinstance(found, Client)
    return found


def _traced_names(interface: Interface) -> dict[str, tuple[list[Any], list[Any]]]:
    """The tensors of each graph as it is traced, by role and name."""
    some = Dimensions(image_size=16, embed_dim=1, feature_channels=(1, 1), stride=16)
    return {
        name: (
            [(each.role, each.name) for each in tensors.inputs],
            [(each.role, each.name) for each in tensors.outputs],
        )
        for name, tensors in traced(some, interface, "multi", "many").items()
    }


_TRACED = {each: _traced_names(each) for each in get_args(Interface)}

SAMEXPORTER_ENCODER = GraphFile("encoder", same("image"), same(*FEATURES))
SAMEXPORTER_DECODER = GraphFile(
    "decoder",
    same("image_embed", "high_res_feats_0", "high_res_feats_1")
    | same("point_coords", "point_labels", "mask_input", "has_mask_input"),
    same("masks", "iou_predictions"),
)


def description(
    client: Client,
    masks: MaskChoice,
    prompts: PromptChoice,
    files: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> dict[str, Any]:
    """The part of a manifest that a consumer runs the files by.

    :param files: size and sha256 of each, and the runtimes that it needs, by name.
    :param tensors: ``inputs`` and ``outputs`` of each graph, each a `Tensor`'s fields.
    :param names: of each graph's file.
    """
    return {
        "client": client.name,
        "files": files,
        **{graph: {"file": name, **tensors[graph]} for graph, name in names.items()},
        "preprocessing": preprocessing(client),
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
    """What a program would have to guess of the feeds of a prompt."""
    corners = "top left before bottom right"
    told = {"coordinates": "x, y in pixels of the encoder's input"}
    if interface == "points and boxes":
        return {**told, "box": f"x0, y0, x1, y1 in the input of boxes: {corners}"}
    return {
        **told,
        "box": f"two points before all others, {corners}",
        "without_mask": "zeros for mask_input, 0 for has_mask_input",
        "with_mask": "the logits of a mask as the decoder gave them, 1 for has_mask_input",
    }


def _pixels_per_cell(client: Client, tensors: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Pixels of the encoder's input to a mask's cell; None where masks are of the image's size."""
    if client.interface == "image size":
        return None
    (image,) = tensors["encoder"]["inputs"]
    masks = next(each for each in tensors["decoder"]["outputs"] if each["role"] == "masks")
    return int(image["shape"][-1] // masks["shape"][-1])


def preprocessing(client: Client) -> dict[str, Any]:
    """How an image becomes the encoder's input, as a manifest tells it."""
    padding = None if client.resize == "stretch" else "zero, after normalization"
    return {
        **PREPROCESSING,
        "resize": client.resize,
        "padding": padding,
        "point_labels": dict(POINT_LABELS),
    }

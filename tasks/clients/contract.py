"""Tensor contracts: the inputs and outputs of graphs, and how an image is prepared for them.

Each tensor has a role, which is also its name in the traced graphs. Roles are samexporter's names
where it has one. A client can use another name for a role (`tasks.clients.client`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor

# The masks that a decoder returns. multi: three; ranked: three, best score first; best: the one
# with the best score; single: the model's own single mask; all: four, the single one first.
MaskChoice = Literal["multi", "ranked", "best", "single", "all"]
# How many prompts a decoder takes in a run.
PromptChoice = Literal["one", "many"]
# A decoder's inputs beside the encoder's outputs. "points": points and a mask to refine. "image
# size" and "padded image size": also the image's size, at which the decoder returns masks; the
# image is stretched to the encoder's size, or its longer side is scaled to that size and the rest
# is padded. "point batches": points with a first axis for images, as transformers feeds SAM 1.
Interface = Literal[
    "points", "points and boxes", "point batches", "image size", "padded image size"
]
# The file format of a graph.
Format = Literal["onnx", "ort"]
# How weights are stored; "half" also stores values and computes in half precision.
Precision = Literal["fp32", "fp16", "q8", "q4", "q4f16", "half"]
# The tensors that encoder and decoder share: SAM 2's three feature maps, only the coarsest of
# these, or SAM 1's single map.
Layout = Literal["sam", "sam2", "sam2, one map"]
# How an image gets the encoder's size. "stretch": each side is scaled by itself. "longest side":
# both sides are scaled by one factor, and the image is placed at the top left. "canvas": the same
# on a black canvas, which the encoder's graph normalizes and pads at the bottom.
Resize = Literal["stretch", "longest side", "canvas"]

# Dimensions that the caller chooses.
POINTS, PROMPTS = "num_points", "num_prompts"
BOXES, HEIGHT, WIDTH = "num_boxes", "height", "width"
MASK_BATCH = "mask_batch"  # 1, or as many as prompts
MEMORIES, POINTERS = "memories", "pointers"

# The encoding of positions that transformers passes from SAM 1's encoder to its decoder beside the
# embedding; our encoder returns it too.
PLACES = "image_places"

# The encoder's outputs, finest first: one of their places covers 4, 8 and 16 pixels.
FEATURES = ("high_res_feats_0", "high_res_feats_1", "image_embed")

# The canvas's height for one pixel of its width, which is the encoder's width: AnyLabeling's 684
# of 1024.
CANVAS_HEIGHT = 684 / 1024

# The model was trained on RGB values of 0-255, normalized by ImageNet's statistics.
PREPROCESSING: Mapping[str, Any] = {
    "layout": "NCHW",
    "channels": "RGB",
    "value_range": [0, 255],
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}
POINT_LABELS: Mapping[str, int] = {
    "padding": -1,
    "background": 0,
    "foreground": 1,
    "box_top_left": 2,
    "box_bottom_right": 3,
}


@dataclass(frozen=True)
class Tensor:
    """A graph's input or output. A dimension is a size, or a name if the caller chooses it."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    role: str = ""

    def sizes(self, **chosen: int) -> list[int]:
        """The shape with the ``chosen`` sizes for named dimensions, 1 for the others."""
        return [chosen.get(size, 1) if isinstance(size, str) else size for size in self.shape]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class GraphTensors:
    """The inputs and outputs of one graph, in their order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def names(self) -> tuple[list[str], list[str]]:
        """The names of the inputs, and of the outputs."""
        return [each.name for each in self.inputs], [each.name for each in self.outputs]

    def free_axes(self) -> dict[str, dict[int, str]]:
        """The dimensions that the caller chooses, by tensor and axis."""
        return {
            each.name: {axis: size for axis, size in enumerate(each.shape) if isinstance(size, str)}
            for each in (*self.inputs, *self.outputs)
            if any(isinstance(size, str) for size in each.shape)
        }


# A model's graphs by name, with their tensors.
Contract = Mapping[str, GraphTensors]


@dataclass(frozen=True)
class Dimensions:
    """The sizes of an architecture that determine the shapes of its tensors.

    ``image_size``: height and width of the encoder's input in pixels; ``embed_dim``: channels of
    the image embedding; ``feature_channels``: channels of the two high-resolution feature maps,
    empty for a model without them; ``stride``: image pixels for each place of the embedding;
    ``masks``: the number of masks for each prompt; ``has_places``: the encoder also returns the
    positional encoding of the embedding's places.
    """

    image_size: int
    embed_dim: int
    feature_channels: tuple[int, ...]
    stride: int
    masks: int = 3
    has_places: bool = False


@dataclass(frozen=True)
class Memory:
    """The memory that an architecture keeps of a frame.

    ``shape``: the shape of one memory; ``has_times``: pointers carry their age; ``has_absence``:
    the memory of a frame without the object is marked.
    """

    shape: tuple[int, ...]
    has_times: bool
    has_absence: bool


def memory_of(model: SAM2Base) -> Memory:
    """The memory of sam2's model (a map) or of EdgeTAM (latents)."""
    side = model.image_size // model.backbone_stride
    perceiver = getattr(model, "spatial_perceiver", None)
    map_shape = (model.mem_dim, side, side)
    return Memory(
        shape=map_shape if perceiver is None else (perceiver.count, model.mem_dim),
        has_times=bool(model.add_tpos_enc_to_obj_ptrs),
        has_absence=model.no_obj_embed_spatial is not None,
    )


@dataclass(frozen=True)
class TrackingConstants:
    """The constants that a program needs to track with the graphs; ``video`` in a manifest.

    A frame attends to ``memories`` of earlier frames, one of every ``memory_stride``, and to
    ``max_pointers`` pointers of at most ``max_conditioning_frames`` prompted frames (-1 for all).
    The decoder draws three masks if the number of points is within ``multimask_points`` (least,
    most), and never if that is None. With ``signed_pointer_times``, the pointer of a later frame
    has a negative age; with ``pointers_from_past_only``, it does not count. With
    ``corrections_condition``, a frame that was corrected after tracking also conditions.
    """

    image_size: int
    memories: int
    memory_stride: int
    max_pointers: int
    max_conditioning_frames: int
    signed_pointer_times: bool
    pointers_from_past_only: bool
    multimask_points: tuple[int, int] | None
    multimask_when_tracking: bool
    corrections_condition: bool


def tracking_constants(predictor: SAM2VideoPredictor) -> TrackingConstants:
    """The constants of sam2's predictor."""
    points = (predictor.multimask_min_pt_num, predictor.multimask_max_pt_num)
    return TrackingConstants(
        image_size=predictor.image_size,
        memories=predictor.num_maskmem,
        memory_stride=predictor.memory_temporal_stride_for_eval,
        max_pointers=predictor.max_obj_ptrs_in_encoder,
        max_conditioning_frames=predictor.max_cond_frames_in_attn,
        signed_pointer_times=predictor.use_signed_tpos_enc_to_obj_ptrs,
        pointers_from_past_only=predictor.only_obj_ptrs_in_the_past_for_eval,
        multimask_points=points if predictor.multimask_output_in_sam else None,
        multimask_when_tracking=predictor.multimask_output_for_tracking,
        corrections_condition=predictor.add_all_frames_to_correct_as_cond,
    )


def tracking_contract(dimensions: Dimensions, memory: Memory) -> Contract:
    """The contract of the tracking graphs, which follow one object through frames."""
    side, width = dimensions.image_size // dimensions.stride, dimensions.embed_dim
    mask = 4 * side
    inputs = traced_contract(dimensions, "points", "multi", "one")["decoder"].inputs
    features = [each for each in inputs if each.role in FEATURES]
    embedding, score = features[0], tensor("object_score_logits", 1, 1)
    masks = tensor("low_res_masks", 1, 1, mask, mask)
    absence = (score,) if memory.has_absence else ()
    pointer_times = (tensor("pointer_times", POINTERS),) if memory.has_times else ()
    return {
        "tracking_decoder": GraphTensors(
            (
                *features,
                tensor("point_coords", 1, POINTS, 2),
                tensor("point_labels", 1, POINTS),
                tensor("mask_input", 1, 1, mask, mask),
                tensor("has_mask_input", 1),
                tensor("multimask", 1),
            ),
            (masks, tensor("iou_predictions", 1, 1), score, tensor("object_pointer", 1, width)),
        ),
        "memory_attention": GraphTensors(
            (
                embedding,
                tensor("memories", MEMORIES, *memory.shape),
                tensor("memory_times", MEMORIES, dtype="int32"),
                tensor("pointers", POINTERS, width),
                *pointer_times,
            ),
            (tensor("conditioned_embed", 1, width, side, side),),
        ),
        "memory_encoder": GraphTensors(
            (embedding, masks, tensor("prompted", 1), *absence),
            (tensor("memory", 1, *memory.shape),),
        ),
        "mask_prompt": GraphTensors(
            (embedding, tensor("mask", 1, 1, dimensions.image_size, dimensions.image_size)),
            (
                tensor("image_embed_without_memory", 1, width, side, side),
                tensor("mask_input", 1, 1, mask, mask),
                masks,
                score,
            ),
        ),
    }


def traced_contract(
    dimensions: Dimensions, interface: Interface, masks: MaskChoice, prompts: PromptChoice
) -> Contract:
    """The contract of the graphs as they are traced: each tensor's name is its role.

    The feature maps have four and two times the embedding's height and width, a mask four times.
    """
    size, channels = dimensions.image_size, dimensions.feature_channels
    side = size // dimensions.stride
    details = tuple(
        tensor(role, 1, width, scale * side, scale * side)
        for role, width, scale in zip(FEATURES, channels, (4, 2), strict=False)
    )
    embedding = tensor("image_embed", 1, dimensions.embed_dim, side, side)
    count = {"best": 1, "single": 1, "all": dimensions.masks + 1}.get(masks, dimensions.masks)
    places = (tensor(PLACES, *embedding.shape),) if dimensions.has_places else ()
    batch = 1 if prompts == "one" else PROMPTS
    inputs, outputs = _prompts_and_masks(interface, count, 4 * side, batch)
    return {
        "encoder": GraphTensors(
            (tensor("image", 1, 3, size, size),), (*details, embedding, *places)
        ),
        "decoder": GraphTensors(
            (embedding, *(places if interface == "point batches" else details), *inputs), outputs
        ),
    }


def _prompts_and_masks(
    interface: Interface, count: int, side: int, batch: int | str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """A decoder's inputs beside the features, and its outputs: ``count`` masks for each prompt."""
    if interface == "point batches":
        return (
            tensor("point_coords", 1, batch, POINTS, 2),
            tensor("point_labels", 1, batch, POINTS, dtype="int64"),
        ), (
            tensor("masks", 1, batch, count, side, side),
            tensor("iou_predictions", 1, batch, count),
        )
    if interface == "points and boxes":
        return (
            tensor("point_coords", 1, "points_batch", POINTS, 2),
            tensor("point_labels", 1, batch, POINTS, dtype="int64"),
            tensor("boxes", 1, BOXES, 4),
        ), (
            tensor("masks", 1, batch, count, side, side),
            tensor("iou_predictions", 1, batch, count),
            tensor("object_score_logits", 1, batch, 1),
        )
    points = (
        tensor("point_coords", batch, POINTS, 2),
        tensor("point_labels", batch, POINTS),
        tensor("mask_input", 1 if batch == 1 else MASK_BATCH, 1, side, side),
        tensor("has_mask_input", 1),
    )
    scores = tensor("iou_predictions", batch, count)
    small = (batch, count, side, side)
    if interface == "points":
        return points, (tensor("masks", *small), scores)
    number = "int64" if interface == "image size" else "float32"
    return (*points, tensor("orig_im_size", 2, dtype=number)), (
        tensor("masks", batch, count, HEIGHT, WIDTH),
        scores,
        tensor("low_res_masks", *small),
    )


def tensor(role: str, *shape: int | str, dtype: str = "float32") -> Tensor:
    """A tensor named after its role."""
    return Tensor(role, dtype, shape, role)


def as_json(graphs: Contract) -> dict[str, Any]:
    """Tensors as they appear in reports and manifests."""
    return {name: asdict(tensors) for name, tensors in graphs.items()}


def renamed(tensors: Sequence[Tensor], names: Mapping[str, str]) -> tuple[Tensor, ...]:
    """The tensors with new ``names`` (by role), in the order of these names."""
    by_role = {each.role: each for each in tensors}
    return tuple(replace(by_role[role], name=name) for role, name in names.items())

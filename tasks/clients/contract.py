"""Tensor contracts: what graphs take and give, and how an image is prepared for them.

Each tensor has a role, which is also its name in the graphs as they are traced: samexporter's
name where that has one. A client gives it a name of its own (`tasks.clients.client`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base
    from sam2.sam2_video_predictor import SAM2VideoPredictor

# Which masks a decoder returns: the three; those in the order of their scores; the one of the best
# score; the model's own single mask; all four, the single one first.
MaskChoice = Literal["multi", "ranked", "best", "single", "all"]
# How many prompts it takes in a run.
PromptChoice = Literal["one", "many"]
# What it takes beside the encoder's outputs: points and a mask to refine; points and boxes; or
# points, a mask and the image's size, at which it returns masks.
Interface = Literal["points", "points and boxes", "image size"]
# In what kind of file a graph is stored.
Format = Literal["onnx", "ort"]
# How an image comes to the encoder's size: each side of its own, or both by one factor, placed at
# the top left.
Resize = Literal["stretch", "longest side"]

# Dimensions that the caller chooses.
POINTS, PROMPTS = "num_points", "num_prompts"
BOXES, HEIGHT, WIDTH = "num_boxes", "height", "width"
MASK_BATCH = "mask_batch"  # 1, or as many as prompts
MEMORIES, POINTERS = "memories", "pointers"

# The encoder's outputs, by the pixels to one of their places: 4, 8 and 16.
FEATURES = ("high_res_feats_0", "high_res_feats_1", "image_embed")

# What the model was trained on: RGB on 0-255 values (ImageNet's statistics).
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
    """A graph's input or output. A dimension is a size, or a name where the caller chooses."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    role: str = ""

    def sizes(self, **chosen: int) -> list[int]:
        """The shape with so many of what the caller chooses; 1 of what is not named."""
        return [chosen.get(size, 1) if isinstance(size, str) else size for size in self.shape]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


@dataclass(frozen=True)
class GraphTensors:
    """The inputs and outputs of one graph, in their order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def names(self) -> tuple[list[str], list[str]]:
        """Those of the inputs and of the outputs."""
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
    """The sizes of an architecture that its tensors follow from.

    ``image_size``: height and width of the encoder's input in pixels; ``embed_dim``: channels of
    the image embedding; ``feature_channels``: those of the two high-resolution feature maps;
    ``stride``: pixels of the image to one of the embedding; ``masks``: of one prompt.
    """

    image_size: int
    embed_dim: int
    feature_channels: tuple[int, int]
    stride: int
    masks: int = 3


def dimensions_of(model: SAM2Base) -> Dimensions:
    """Those of sam2's model."""
    decoder = model.sam_mask_decoder
    return Dimensions(
        image_size=model.image_size,
        embed_dim=model.sam_prompt_encoder.embed_dim,
        feature_channels=(decoder.conv_s0.out_channels, decoder.conv_s1.out_channels),
        stride=model.backbone_stride,
        masks=decoder.num_multimask_outputs,
    )


@dataclass(frozen=True)
class Memory:
    """What an architecture keeps of a frame, for `tracking`.

    ``shape`` is a memory's; ``has_times``: pointers are told apart by how old they are;
    ``has_absence``: a memory of a frame without the object is marked.
    """

    shape: tuple[int, ...]
    has_times: bool
    has_absence: bool


def memory_of(model: SAM2Base) -> Memory:
    """That of sam2's model: a map, of EdgeTAM the latents that it is read into."""
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
    """What a program that tracks must know of a model beside its graphs; ``video`` of a manifest.

    ``memories`` of frames are looked at, one of every ``memory_stride``, and ``max_pointers``
    pointers, of ``max_conditioning_frames`` prompted ones (-1 for all). ``multimask_points`` are
    the least and most points for which three masks are drawn, None for never.
    ``signed_pointer_times``: a later frame's pointer has a negative age;
    ``pointers_from_past_only``: it is not looked at. ``corrections_condition``: a frame that was
    corrected after it was tracked conditions too.
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
    """Those of sam2's predictor."""
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


def tracking(of: Dimensions, memory: Memory) -> Contract:
    """The contract of the graphs that follow an object through frames; one object in a run."""
    side, mask = of.image_size // of.stride, 4 * of.image_size // of.stride
    features = traced(of, "points", "multi", "one")["decoder"].inputs[:3]
    embedding, score = features[0], tensor("object_score_logits", 1, 1)
    masks = tensor("low_res_masks", 1, 1, mask, mask)
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
            (
                masks,
                tensor("iou_predictions", 1, 1),
                score,
                tensor("object_pointer", 1, of.embed_dim),
            ),
        ),
        "memory_attention": GraphTensors(
            (
                embedding,
                tensor("memories", MEMORIES, *memory.shape),
                tensor("memory_times", MEMORIES, dtype="int32"),
                tensor("pointers", POINTERS, of.embed_dim),
                *pointer_times,
            ),
            (tensor("conditioned_embed", 1, of.embed_dim, side, side),),
        ),
        "memory_encoder": GraphTensors(
            (
                embedding,
                masks,
                tensor("prompted", 1),
                *((score,) if memory.has_absence else ()),
            ),
            (tensor("memory", 1, *memory.shape),),
        ),
        "mask_prompt": GraphTensors(
            (embedding, tensor("mask", 1, 1, of.image_size, of.image_size)),
            (
                tensor("image_embed_without_memory", 1, of.embed_dim, side, side),
                tensor("mask_input", 1, 1, mask, mask),
                masks,
                score,
            ),
        ),
    }


def traced(
    of: Dimensions, interface: Interface, masks: MaskChoice, prompts: PromptChoice
) -> Contract:
    """The contract of the graphs as they are traced: each tensor's name is its role.

    The feature maps have four and two times the embedding's height and width, a mask four times.
    """
    embedding, mask = of.image_size // of.stride, 4 * of.image_size // of.stride
    features = (
        tensor("high_res_feats_0", 1, of.feature_channels[0], 4 * embedding, 4 * embedding),
        tensor("high_res_feats_1", 1, of.feature_channels[1], 2 * embedding, 2 * embedding),
        tensor("image_embed", 1, of.embed_dim, embedding, embedding),
    )
    encoder = GraphTensors((tensor("image", 1, 3, of.image_size, of.image_size),), features)
    count = {"best": 1, "single": 1, "all": of.masks + 1}.get(masks, of.masks)
    inputs, outputs = _ends(interface, count, mask, 1 if prompts == "one" else PROMPTS)
    ordered = (features[2], features[0], features[1])
    return {"encoder": encoder, "decoder": GraphTensors((*ordered, *inputs), outputs)}


def _ends(
    interface: Interface, count: int, side: int, batch: int | str
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """What a decoder takes beside features, and what it returns.

    :param count: of masks for a prompt; ``side`` is theirs, ``batch`` the number of prompts.
    """
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
    return (*points, tensor("orig_im_size", 2, dtype="int64")), (
        tensor("masks", batch, count, HEIGHT, WIDTH),
        scores,
        tensor("low_res_masks", *small),
    )


def tensor(role: str, *shape: int | str, dtype: str = "float32") -> Tensor:
    """A tensor that is named after its role."""
    return Tensor(role, dtype, shape, role)


def as_json(graphs: Contract) -> dict[str, Any]:
    """Tensors as reports and manifests have them."""
    return {
        name: {
            "inputs": [asdict(each) for each in tensors.inputs],
            "outputs": [asdict(each) for each in tensors.outputs],
        }
        for name, tensors in graphs.items()
    }


def renamed(tensors: Sequence[Tensor], names: Mapping[str, str]) -> tuple[Tensor, ...]:
    """The tensors of some roles under other names, in the order of the names.

    :param names: by role.
    """
    by_role = {each.role: each for each in tensors}
    return tuple(
        Tensor(name, by_role[role].dtype, by_role[role].shape, role) for role, name in names.items()
    )

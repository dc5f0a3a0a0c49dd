"""The tensor contract of the encoder and decoder files, as samexporter set it.

Consumers (NimbusImage, samexporter.inference, AnyLabeling) feed and read tensors by these names,
so neither names nor meanings may change; shapes follow from the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

    from tasks.config.schema import MaskChoice

# A dimension that the caller chooses: how many points a prompt has.
POINTS = "num_points"

# What the model was trained on: RGB on 0-255 values (ImageNet's statistics).
PREPROCESSING: Mapping[str, Any] = {
    "layout": "NCHW",
    "channels": "RGB",
    "value_range": [0, 255],
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "resize": "longer side to the input size, placed at the top left",
    "padding": "zero, after normalization",
    "point_labels": {
        "padding": -1,
        "background": 0,
        "foreground": 1,
        "box_top_left": 2,
        "box_bottom_right": 3,
    },
}


@dataclass(frozen=True)
class Tensor:
    """A graph's input or output. A dimension is a size, or a name where the caller chooses."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def sizes(self, points: int = 1) -> list[int]:
        """The shape for a prompt of so many points."""
        return [points if isinstance(size, str) else size for size in self.shape]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} ({', '.join(map(str, self.shape))})"


def float32(name: str, *shape: int | str) -> Tensor:
    """A float32 tensor."""
    return Tensor(name, "float32", shape)


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


def contract(
    image_size: int, embed_dim: int, feature_channels: Sequence[int], stride: int, masks: int
) -> Contract:
    """The contract of an architecture.

    :param image_size: height and width of the encoder's input in pixels.
    :param embed_dim: channels of the image embedding.
    :param feature_channels: channels of the two high-resolution feature maps.
    :param stride: pixels of the image to one of the embedding; the feature maps have a
        quarter and half of it, a mask a quarter.
    :param masks: how many masks the decoder returns.
    """
    embedding, mask = image_size // stride, 4 * image_size // stride
    features = (
        float32("high_res_feats_0", 1, feature_channels[0], 4 * embedding, 4 * embedding),
        float32("high_res_feats_1", 1, feature_channels[1], 2 * embedding, 2 * embedding),
        float32("image_embed", 1, embed_dim, embedding, embedding),
    )
    return {
        "encoder": GraphTensors(
            inputs=(float32("image", 1, 3, image_size, image_size),), outputs=features
        ),
        "decoder": GraphTensors(
            inputs=(
                features[2],
                features[0],
                features[1],
                float32("point_coords", 1, POINTS, 2),
                float32("point_labels", 1, POINTS),
                float32("mask_input", 1, 1, mask, mask),
                float32("has_mask_input", 1),
            ),
            outputs=(
                float32("masks", 1, masks, mask, mask),
                float32("iou_predictions", 1, masks),
            ),
        ),
    }


def contract_of(model: SAM2Base, masks: MaskChoice) -> Contract:
    """The tensor contract of a model's encoder and decoder."""
    decoder = model.sam_mask_decoder
    return contract(
        image_size=model.image_size,
        embed_dim=model.sam_prompt_encoder.embed_dim,
        feature_channels=(decoder.conv_s0.out_channels, decoder.conv_s1.out_channels),
        stride=model.backbone_stride,
        masks=decoder.num_multimask_outputs if masks == "multi" else 1,
    )


def as_json(graphs: Contract) -> dict[str, Any]:
    """Tensors as reports and manifests have them."""
    return {
        name: {
            "inputs": [asdict(each) for each in tensors.inputs],
            "outputs": [asdict(each) for each in tensors.outputs],
        }
        for name, tensors in graphs.items()
    }


def description(
    files: Mapping[str, Mapping[str, Any]],
    tensors: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, str],
) -> dict[str, Any]:
    """The part of a manifest that a consumer runs the files by.

    :param files: size and sha256 of each, by name.
    :param tensors: ``inputs`` and ``outputs`` of each graph, each a `Tensor`'s fields.
    :param names: of each graph's file.
    """
    return {
        "files": files,
        **{graph: {"file": name, **tensors[graph]} for graph, name in names.items()},
        "preprocessing": dict(PREPROCESSING),
    }

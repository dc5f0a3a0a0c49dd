"""The tensor contract of the encoder and decoder files, as samexporter set it.

Consumers (NimbusImage, samexporter.inference, AnyLabeling) feed and read tensors by these names,
so neither names nor meanings may change; shapes follow from the architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ENCODER_INPUTS = ("image",)
ENCODER_OUTPUTS = ("high_res_feats_0", "high_res_feats_1", "image_embed")
DECODER_INPUTS = (
    "image_embed",
    "high_res_feats_0",
    "high_res_feats_1",
    "point_coords",
    "point_labels",
    "mask_input",
    "has_mask_input",
)
DECODER_OUTPUTS = ("masks", "iou_predictions")

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
class Contract:
    """Every input and output of a model's two files."""

    encoder_inputs: tuple[Tensor, ...]
    encoder_outputs: tuple[Tensor, ...]
    decoder_inputs: tuple[Tensor, ...]
    decoder_outputs: tuple[Tensor, ...]


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
    return Contract(
        encoder_inputs=(float32("image", 1, 3, image_size, image_size),),
        encoder_outputs=features,
        decoder_inputs=(
            features[2],
            features[0],
            features[1],
            float32("point_coords", 1, POINTS, 2),
            float32("point_labels", 1, POINTS),
            float32("mask_input", 1, 1, mask, mask),
            float32("has_mask_input", 1),
        ),
        decoder_outputs=(
            float32("masks", 1, masks, mask, mask),
            float32("iou_predictions", 1, masks),
        ),
    )


def described(
    files: Mapping[str, Mapping[str, Any]],
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    names: tuple[str, str] = ("encoder.onnx", "decoder.onnx"),
) -> dict[str, Any]:
    """The part of a manifest that a consumer runs the files by.

    :param files: size and sha256 of each, by name.
    :param encoder: its ``inputs`` and ``outputs``, each a `Tensor`'s fields.
    :param names: of the files of both.
    """
    return {
        "files": files,
        "encoder": {"file": names[0], **encoder},
        "decoder": {"file": names[1], **decoder},
        "preprocessing": dict(PREPROCESSING),
    }


def violations(file: str, expected: Sequence[Tensor], found: Sequence[Tensor]) -> list[str]:
    """What a graph's tensors break of the contract, a sentence each."""
    by_name = {tensor.name: tensor for tensor in found}
    broken = []
    for tensor in expected:
        actual = by_name.pop(tensor.name, None)
        if actual is None:
            broken.append(f"{file}: expected {tensor}, found no tensor of that name")
        elif (actual.dtype, actual.shape) != (tensor.dtype, tensor.shape):
            broken.append(f"{file}: expected {tensor}, found {actual}")
    broken += [
        f"{file}: found {tensor}, which the contract does not have" for tensor in by_name.values()
    ]
    return broken

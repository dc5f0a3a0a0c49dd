"""osam through its Python API, as in version 0.8.1, ``osam/_models/sam2``.

It reads the encoder's outputs by position. The decoder returns masks at the image's own size, and
osam uses the one with the best score. labelme also runs models with osam, but only from a fixed
list: it loads none of these files.

``osam/_models/sam1`` runs SAM 1: it places the image at the top left, calls the encoder's input
``x``, uses the first mask regardless of its score, and sends a ``has_mask_input`` of -1 for no
mask.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.clients.client import (
    META_DECODER,
    META_ENCODER,
    ON_THE_CPU,
    SAM_NEVER_SENDS,
    Client,
    GraphFile,
    same,
)

_FEATURES = {
    "image_embed": "image_embeddings",
    "high_res_feats_0": "high_res_features1",
    "high_res_feats_1": "high_res_features2",
}

CLIENT = Client(
    name="osam",
    version="0.8.1",
    encoder=GraphFile("encoder", {"image": "input"}, _FEATURES, ("onnx",)),
    decoder=GraphFile(
        "decoder",
        _FEATURES
        | same("point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"),
        {"masks": "masks", "iou_predictions": "scores", "low_res_masks": "low_res_masks"},
        ("onnx",),
    ),
    interface="image size",
    masks=("all",),
    prompts=("one",),
    image_sizes=(1024,),  # its mask input is 256 × 256
    loads=("onnx",),
    refused={"half": ON_THE_CPU},
)

FOR_SAM = replace(
    CLIENT,
    layout="sam",
    encoder=replace(META_ENCODER, inputs={"image": "x"}),
    decoder=META_DECODER,
    interface="padded image size",
    masks=("best", "ranked", "single"),
    resize="longest side",
    padding_point=True,
    never_sends=SAM_NEVER_SENDS,
)

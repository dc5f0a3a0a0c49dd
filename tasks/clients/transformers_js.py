"""transformers.js, the npm package @huggingface/transformers, 4.3.1: ``Sam2Model``, ``SamModel``.

It loads two graphs from a folder with ``config.json`` and ``preprocessor_config.json``, like those
of the Python package transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.clients.client import Client, GraphFile
from tasks.clients.contract import FEATURES, PLACES, PREPROCESSING
from tasks.clients.runtime import RuntimePath

# The package has its own copy of onnxruntime-web, and imports `onnxruntime-web/webgpu`.
_RUNTIME = "@huggingface/transformers/node_modules/onnxruntime-web"
_FEATURES = {role: f"image_embeddings.{level}" for level, role in enumerate(FEATURES)}


def documents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """``config.json`` and ``preprocessor_config.json`` for ``Sam2Model``."""
    side = manifest["encoder"]["inputs"][0]["shape"][2]
    vision = {"model_type": "sam2_vision_model", "num_feature_levels": len(FEATURES)}
    sizes = {
        "size": {"height": side, "width": side},
        "mask_size": {"height": side // 4, "width": side // 4},
    }
    return _documents(manifest, "Sam2", vision, sizes)


def documents_for_sam(manifest: Mapping[str, Any]) -> dict[str, str]:
    """``config.json`` and ``preprocessor_config.json`` for ``SamModel``."""
    side = manifest["encoder"]["inputs"][0]["shape"][2]
    sizes = {
        "size": {"longest_edge": side},
        "do_pad": True,
        "pad_size": {"height": side, "width": side},
    }
    return _documents(manifest, "Sam", {"model_type": "sam_vision_model"}, sizes)


def _documents(
    manifest: Mapping[str, Any], kind: str, vision: Mapping[str, Any], sizes: Mapping[str, Any]
) -> dict[str, str]:
    """The documents for a class of the package.

    By default the package would load 8 bits on WASM, so ``config.json`` names a precision for each
    device: the recommended one, or the first deployed one.
    """
    deployed = [each["precision"] for each in manifest["variants"] if each["deployed"]]
    recommended = manifest["recommended"]
    config = {
        "architectures": [f"{kind}Model"],
        "model_type": kind.lower(),
        "vision_config": vision,
        "transformers.js_config": {
            "dtype": deployed[0],
            "device_config": {
                device: {"dtype": recommended.get(device, {}).get("variant", deployed[0])}
                for device in ("wasm", "webgpu")
            },
        },
    }
    preprocessor = {
        "processor_class": f"{kind}Processor",
        "image_processor_type": f"{kind}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(value / 255, 6) for value in PREPROCESSING["mean"]],
        "image_std": [round(value / 255, 6) for value in PREPROCESSING["std"]],
        **sizes,
    }
    return {
        "config.json": json.dumps(config, indent=2) + "\n",
        "preprocessor_config.json": json.dumps(preprocessor, indent=2) + "\n",
    }


CLIENT = Client(
    name="transformers.js",
    version="4.3.1",
    encoder=GraphFile("onnx/vision_encoder", {"image": "pixel_values"}, _FEATURES, ("onnx",)),
    decoder=GraphFile(
        "onnx/prompt_encoder_mask_decoder",
        {"point_coords": "input_points", "point_labels": "input_labels", "boxes": "input_boxes"}
        | _FEATURES,
        {
            "iou_predictions": "iou_scores",
            "masks": "pred_masks",
            "object_score_logits": "object_score_logits",
        },
        ("onnx",),
    ),
    interface="points and boxes",
    masks=("multi", "ranked"),
    prompts=("many",),
    refused={"half": "it has its own list of precisions, without half"},
    never_sends={
        "mask": "Sam2Model's decoder has no mask input",
        "padding label": "Sam2Processor sends only the labels of real points",
        "corner label": "a box is sent as input_boxes",
        "prompts of different lengths": "Sam2Processor makes one tensor of equally long rows",
    },
    loads=("onnx",),
    page="proof/check-transformers.html",
    paths=(RuntimePath("wasm", "webgpu", _RUNTIME), RuntimePath("webgpu", "webgpu", _RUNTIME)),
    library="transformers.js",
    documents=documents,
)

_PLACED = {"image_embed": "image_embeddings", PLACES: "image_positional_embeddings"}

FOR_SAM = replace(
    CLIENT,
    layout="sam",
    encoder=replace(CLIENT.encoder, outputs=_PLACED),
    decoder=replace(
        CLIENT.decoder,
        inputs=_PLACED | {"point_coords": "input_points", "point_labels": "input_labels"},
        outputs={"iou_predictions": "iou_scores", "masks": "pred_masks"},
    ),
    interface="point batches",
    resize="longest side",
    never_sends={**CLIENT.never_sends, "box": "SamModel takes no boxes without points"},
    image_sizes=(1024,),
    documents=documents_for_sam,
)

"""X-AnyLabeling and AnyLabeling: desktop programs for labelling.

X-AnyLabeling at 87da339 (`anylabeling/services/auto_labeling/__base__/sam2.py`) stretches the
image, reads inputs and outputs by position, and feeds 64 prompts at once to segment everything.
AnyLabeling at 5c15bbf does the same with single prompts, and recognizes SAM 2 by an input named
``high_res_feats_0``. Each loads a custom model through a YAML file, with its own ``type``.

Both run SAM 1 in `anylabeling/services/auto_labeling/sam_onnx.py`: they scale an image by one
factor into a black canvas (684, 1024, 3) of raw RGB values, which the encoder normalizes and pads.
``orig_im_size`` is the canvas's size. They warp the first mask back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.clients.client import (
    META_DECODER,
    META_ENCODER,
    ON_THE_CPU,
    SAM_NEVER_SENDS,
    SAMEXPORTER_DECODER,
    SAMEXPORTER_ENCODER,
    Client,
)
from tasks.clients.contract import CANVAS_HEIGHT


def documents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """``x-anylabeling.yaml`` and ``anylabeling.yaml``, for each program's "Load Custom Model".

    Paths in a YAML file are relative to it. AnyLabeling reads three sizes, but does not use them
    for SAM 2.
    """
    common = _common(manifest)
    side = manifest["encoder"]["inputs"][0]["shape"][2]
    sizes = dict.fromkeys(("input_size", "max_width", "max_height"), side)
    return {
        "x-anylabeling.yaml": _yaml({"type": "segment_anything_2", **common}),
        "anylabeling.yaml": _yaml({"type": "segment_anything", **common, **sizes}),
    }


def documents_for_sam(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The same two files with equal content: both programs read the sizes, but use none."""
    width = max(manifest["encoder"]["inputs"][0]["shape"])
    sizes = {"input_size": width, "max_width": width, "max_height": round(width * CANVAS_HEIGHT)}
    text = _yaml({"type": "segment_anything", **_common(manifest), **sizes})
    return {"x-anylabeling.yaml": text, "anylabeling.yaml": text}


def _common(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The keys that both programs read for every model."""
    # X-AnyLabeling accepts no other characters in a name.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", manifest["model"])
    return {
        "name": name,
        "display_name": name,
        "encoder_model_path": manifest["encoder"]["file"],
        "decoder_model_path": manifest["decoder"]["file"],
    }


def _yaml(content: Mapping[str, Any]) -> str:
    """A flat table; JSON's strings and numbers are valid YAML."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items())


CLIENT = Client(
    name="anylabeling",
    version="X-AnyLabeling 87da339, AnyLabeling 5c15bbf",
    encoder=SAMEXPORTER_ENCODER,
    decoder=SAMEXPORTER_DECODER,
    loads=("onnx",),
    refused={"half": ON_THE_CPU},
    documents=documents,
)

FOR_SAM = replace(
    CLIENT,
    layout="sam",
    encoder=META_ENCODER,
    decoder=META_DECODER,
    interface="padded image size",
    masks=("best", "ranked", "single"),  # they use the first of several
    prompts=("one",),
    resize="canvas",
    padding_point=True,
    image_sizes=(1024,),
    never_sends=SAM_NEVER_SENDS,
    documents=documents_for_sam,
)

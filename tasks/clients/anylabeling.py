"""X-AnyLabeling and AnyLabeling: desktop programs for labelling.

X-AnyLabeling at 87da339 (`anylabeling/services/auto_labeling/__base__/sam2.py`) stretches the
image, takes inputs and outputs by position, and feeds 64 prompts at once to segment everything.
AnyLabeling at 5c15bbf does the same with single prompts, and recognizes SAM 2 by an input that is
called ``high_res_feats_0``. Each loads a custom model by a YAML; the two have other types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tasks.clients.client import SAMEXPORTER_DECODER, SAMEXPORTER_ENCODER, Client


def documents(manifest: Mapping[str, Any]) -> dict[str, str]:
    """``x-anylabeling.yaml`` and ``anylabeling.yaml``, for "Load Custom Model" of each.

    Paths in them are relative to the YAML. AnyLabeling reads three sizes that it does not use for
    SAM 2.
    """
    # X-AnyLabeling takes no other letters in a name.
    name = re.sub(r"[^A-Za-z0-9._-]", "_", manifest["model"])
    common = {
        "name": name,
        "display_name": name,
        "encoder_model_path": manifest["encoder"]["file"],
        "decoder_model_path": manifest["decoder"]["file"],
    }
    side = manifest["encoder"]["inputs"][0]["shape"][2]
    sizes = dict.fromkeys(("input_size", "max_width", "max_height"), side)
    return {
        "x-anylabeling.yaml": _yaml({"type": "segment_anything_2", **common}),
        "anylabeling.yaml": _yaml({"type": "segment_anything", **common, **sizes}),
    }


def _yaml(content: Mapping[str, Any]) -> str:
    """A flat table; JSON's texts and numbers are valid YAML."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in content.items())


CLIENT = Client(
    name="anylabeling",
    version="X-AnyLabeling 87da339, AnyLabeling 5c15bbf",
    encoder=SAMEXPORTER_ENCODER,
    decoder=SAMEXPORTER_DECODER,
    loads=("onnx",),
    documents=documents,
)

"""The graphs of sam2's model, in the form of `families.family.Graphs`.

The modules of encoder and decoder are samexporter's; the patches make them correct and fast.
"""

from __future__ import annotations

from collections.abc import Mapping

from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder
from torch import nn

from tasks.clients.contract import (
    Interface,
    MaskChoice,
    PromptChoice,
    memory_of,
    traced_contract,
    tracking_contract,
)
from tasks.model import AttentionKind
from tasks.model.decoder_patches import patched_decoder
from tasks.model.encoder_patches import patched_encoder
from tasks.model.families.family import Traceable
from tasks.model.memory import MemoryReader, MemoryWriter
from tasks.model.sam2_model import dimensions_of
from tasks.model.tracking_decoder import MaskPrompt, TrackingDecoder, patched_tracking_decoder


def encoder(model: SAM2Base, attention: AttentionKind) -> Traceable:
    """The graph from an image to feature maps."""
    module = SAM2ImageEncoder(model).eval()
    return Traceable(
        module,
        patched_encoder(module, attention),
        traced_contract(dimensions_of(model), "points", "multi", "one")["encoder"],
        {
            "do_constant_folding": False,  # folding would store the repeated window embedding
            "custom_opsets": {"com.microsoft": 1} if attention == "fused" else None,
        },
    )


def decoder(
    model: SAM2Base, interface: Interface, masks: MaskChoice, prompts: PromptChoice
) -> Traceable:
    """The graph from feature maps and prompts to masks."""
    module = SAM2ImageDecoder(model, multimask_output=masks != "single").eval()
    del module.model  # not used, but it would be traced too
    return Traceable(
        module,
        patched_decoder(module, masks, interface),
        traced_contract(dimensions_of(model), interface, masks, prompts)["decoder"],
    )


def trackers(model: SAM2Base) -> Mapping[str, Traceable]:
    """The graphs that follow objects through frames."""
    module = TrackingDecoder(model)
    modules: dict[str, nn.Module] = {
        "tracking_decoder": module,
        "memory_attention": MemoryReader(model),
        "memory_encoder": MemoryWriter(model),
        "mask_prompt": MaskPrompt(model),
    }
    contract = tracking_contract(dimensions_of(model), memory_of(model))
    return {  # the patches change only the decoder
        name: Traceable(each, patched_tracking_decoder(module), contract[name])
        for name, each in modules.items()
    }

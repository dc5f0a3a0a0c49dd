"""Each export patch against what it replaces, with parameters that are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sam2.modeling.backbones.hieradet import Hiera, MultiScaleAttention, MultiScaleBlock
from sam2.modeling.sam2_base import SAM2Base

from tasks import patches, sam2_model
from tasks.configuration import ARCHITECTURES


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Iterator[SAM2Base]:
    """A model of each architecture with noise on every parameter."""
    with torch.no_grad():
        torch.manual_seed(1)
        model = sam2_model.build(request.param)
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape), alpha=0.02)
        yield model


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_positional_embedding_is_the_original(model: SAM2Base) -> None:
    trunk: Hiera = model.image_encoder.trunk
    size = (model.image_size // 4, model.image_size // 4)
    assert difference(patches.positional_embedding(trunk)(size), trunk._get_pos_embed(size)) < 1e-6


def test_every_block_and_its_attention_is_the_original(model: SAM2Base) -> None:
    """On a part of the image that fills no whole number of windows, so that padding is seen."""
    x = torch.randn(1, 40, 56, model.image_encoder.trunk.blocks[0].dim)
    for block in model.image_encoder.trunk.blocks:
        expected = block(x)
        found = patches.block(block)(x)
        assert difference(found, expected) < 1e-5
        inner = torch.randn(3, 8, 8, block.dim)
        found = patches.window_attention(block.attn)(inner)
        assert difference(found, block.attn(inner)) < 1e-5
        x = expected


def test_after_the_export_the_model_is_as_it_was(model: SAM2Base) -> None:
    def methods() -> list[object]:
        kinds = (Hiera, MultiScaleAttention, MultiScaleBlock)
        modules = [module for module in model.modules() if isinstance(module, kinds)]
        return [
            getattr(module, name)
            for module in modules
            for name in ("forward", "_get_pos_embed")
            if hasattr(module, name)
        ]

    before = methods()
    with patches.patched(model):
        assert "_get_pos_embed" in vars(model.image_encoder.trunk)
    assert methods() == before

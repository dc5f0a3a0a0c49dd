"""EdgeTAM: its trunk, the patch of the trunk, and synthetic weights.

test_transformers.py compares its graphs with transformers' own EdgeTAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageEncoder
from torch import nn

from tasks import export
from tasks.model import encoder_patches, load, sam2_graphs, weights

# Operators that compute with sizes while a graph runs.
SHAPE_OPERATORS = {"Shape", "Range", "Mod", "ConstantOfShape", "If", "Loop", "Tile", "Size"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic weights."""
    path = tmp_path_factory.mktemp("edgetam") / "edgetam.pt"
    load.make_synthetic("edgetam", 1, str(path))
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[SAM2Base]:
    with torch.no_grad():
        yield load.load_model("edgetam", checkpoint)


def test_parameters_have_the_names_and_shapes_of_edgetams_checkpoint(model: SAM2Base) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    trunk = "image_encoder.trunk.body"
    assert shapes[f"{trunk}.stem.conv1.c.weight"] == (24, 3, 3, 3)
    assert shapes[f"{trunk}.stages_0.blocks.0.token_mixer.conv.bn.running_var"] == (48,)
    assert shapes[f"{trunk}.stages_2.blocks.13.channel_mixer.conv2.c.weight"] == (192, 384, 1, 1)
    assert shapes[f"{trunk}.stages_3.downsample.spatial_downsample.c.weight"] == (192, 1, 3, 3)
    assert shapes["image_encoder.neck.convs.0.conv.weight"] == (256, 384, 1, 1)
    assert shapes["maskmem_tpos_enc"] == (7, 1, 1, 64)
    assert shapes["memory_attention.layers.1.cross_attn_image.k_proj.weight"] == (256, 64)
    assert shapes["memory_attention.layers.1.self_attn.k_proj.weight"] == (256, 256)
    assert (
        shapes["spatial_perceiver.latents"] == shapes["spatial_perceiver.latents_2d"] == (256, 64)
    )
    assert shapes["spatial_perceiver.layers.1.attn.to_kv.weight"] == (128, 64)
    assert shapes["spatial_perceiver.layers.1.ff.0.weight"] == (64,)
    assert shapes["spatial_perceiver.layers.1.self_ff.3.weight"] == (64, 256)
    assert "memory_attention.layers.2.norm1.weight" not in shapes
    assert "no_obj_embed_spatial" not in shapes
    assert f"{trunk}.head.head.l.weight" not in shapes


def test_synthetic_weights_are_suitable_for_a_comparison(model: SAM2Base, checkpoint: Path) -> None:
    """No weight is zero or one, and features neither vanish nor explode."""
    for name, tensor in weights.read(checkpoint).items():
        if tensor.is_floating_point() and tensor.numel() > 1:
            assert not ((tensor == 0) | (tensor == 1)).any(), name
        if name.endswith("running_var"):
            assert (tensor > 0).all(), name
    for features in model.image_encoder.trunk(torch.randn(1, 3, 256, 256)):
        assert 0.5 < features.std((2, 3)).mean() < 10


def test_the_folded_trunk_matches_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    image = torch.randn(1, 3, 256, 192)
    for found, expected in zip(
        encoder_patches.repvit_forward(trunk)(image), trunk(image), strict=True
    ):
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_folding_leaves_the_model_unchanged(model: SAM2Base) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    with encoder_patches.patched_encoder(SAM2ImageEncoder(model), "plain"):
        pass
    assert [type(module) for module in model.modules()] == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_the_encoder_has_no_shape_operators_and_no_batch_norms(
    model: SAM2Base, tmp_path: Path
) -> None:
    path = tmp_path / "encoder.onnx"
    export.write_traced(path, sam2_graphs.encoder(model, "plain"), 20)
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {*SHAPE_OPERATORS, "BatchNormalization", "Erf"}
    assert {"Conv", "Gelu"} <= operators

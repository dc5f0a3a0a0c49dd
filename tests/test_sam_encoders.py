"""The patches of SAM 1's and MobileSAM's image encoders, compared with the code they replace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from tasks import export
from tasks.clients.contract import GraphTensors, tensor
from tasks.model import sam, sam_vit
from tasks.model.families.family import Traceable
from tasks.model.published import SAM_1
from tasks.running import child

# Operators that compute sizes or places while a graph runs.
SHAPE_OPERATORS = {"Shape", "Gather", "Mod", "Range", "ConstantOfShape", "Einsum", "If", "Tile"}


@pytest.fixture(scope="module", autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def with_noise(module: Any) -> Any:
    """A module with noise on every parameter."""
    noise = torch.Generator().manual_seed(1)
    for weights in module.state_dict().values():
        if weights.is_floating_point():
            weights.add_(torch.randn(weights.shape, generator=noise), alpha=0.05)
    return module.eval()


@pytest.fixture(scope="module")
def small() -> ImageEncoderViT:
    """A ViT with few channels. Its map of 24 × 24 places does not divide into whole windows, and is
    larger than a block of queries."""
    torch.manual_seed(1)
    return with_noise(
        ImageEncoderViT(
            img_size=384,
            embed_dim=32,
            depth=3,
            num_heads=2,
            out_chans=16,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=(1,),
        )
    )


def difference(answer: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert answer.shape == expected.shape
    return float((answer - expected).abs().max() / expected.abs().max())


def difference_when_patched(encoder: nn.Module, image: Tensor) -> float:
    """The difference between an encoder's answers with and without patches."""
    expected = encoder(image)
    with sam_vit.patched_image_encoder(encoder, "plain"):
        return difference(encoder(image), expected)


def test_a_vit_matches_the_original(small: ImageEncoderViT) -> None:
    assert sam_vit.BLOCK < 24 * 24
    assert difference_when_patched(small, torch.randn(1, 3, 384, 384)) < 1e-5


@pytest.mark.parametrize("axis", ["rel_pos_h", "rel_pos_w"])
@pytest.mark.parametrize("block", [0, 1])
def test_the_comparison_detects_changes_on_both_axes_of_relative_positions(
    small: ImageEncoderViT, axis: str, block: int
) -> None:
    table = getattr(small.blocks[block].attn, axis)
    image = torch.randn(1, 3, 384, 384)
    expected = small(image)
    kept = table.clone()
    table.copy_(kept.flip(0))
    assert difference(small(image), expected) > 1e-3
    table.copy_(kept)


@pytest.mark.parametrize("size", [(21, 28), (24, 24), (10, 30)])
@pytest.mark.parametrize("heads", [1, 4])
def test_merging_windows_reverses_their_partition(size: tuple[int, int], heads: int) -> None:
    rows = torch.randn(size[0] * size[1], 8)
    windows = sam_vit.in_windows(rows, size, 7, heads)
    assert torch.equal(sam_vit.out_of_windows(windows, size, 7), rows)
    keys = sam_vit.in_windows(rows, size, 7, heads, transposed=True)
    assert torch.equal(keys.transpose(2, 3), windows)


@pytest.mark.parametrize("window", [7, 14])
def test_a_block_of_mobilesam_with_padded_windows_matches_the_original(window: int) -> None:
    """MobileSAM pads before it normalizes, so that padding is not zero in the attention."""
    sam.build("vit_t")
    from samexporter.mobile_encoder.tiny_vit_sam import TinyViTBlock

    block = with_noise(TinyViTBlock(16, (24, 20), num_heads=2, window_size=window))
    block.attn.norm.bias.add_(1.0)
    block.local_conv.bn.running_var.abs_()
    block.eval()  # again, because this builds its table of distances
    rows = torch.randn(1, 24 * 20, 16)
    expected = block(rows)[0].transpose(0, 1).reshape(1, 16, 24, 20)
    x = rows.transpose(1, 2).reshape(1, 16, 24, 20)
    assert difference(sam_vit.tiny_block_forward(block)(x, (24, 20)), expected) < 1e-5


@pytest.fixture(scope="module")
def mobile() -> Any:
    """MobileSAM with synthetic weights."""
    torch.manual_seed(1)
    model = with_noise(sam.build("vit_t"))
    sam.randomize(model, torch.Generator().manual_seed(1))
    return model


@pytest.mark.slow
def test_mobilesam_matches_the_original_and_timm(mobile: Any) -> None:
    """MobileSAM's own code, and timm's, which was written independently."""
    image = torch.randn(1, 3, 1024, 1024)
    encoder = mobile.image_encoder
    assert difference(encoder(image), of_timm(encoder)(image)) < 1e-5
    assert difference_when_patched(encoder, image) < 1e-5


def of_timm(encoder: Any) -> nn.Module:
    """timm's TinyViT with MobileSAM's weights, its neck, and its stride before the last stage."""
    from timm.models.tiny_vit import TinyVit

    trunk: Any = TinyVit(
        num_classes=0, embed_dims=(64, 128, 160, 320), num_heads=(2, 4, 5, 10), drop_path_rate=0.0
    )
    trunk.stages[3].downsample.conv2.conv.stride = (1, 1)
    renamed = {}
    for name, weights in encoder.state_dict().items():
        name = re.sub(r"^patch_embed\.seq\.0\.", "patch_embed.conv1.", name)
        name = re.sub(r"^patch_embed\.seq\.2\.", "patch_embed.conv2.", name)
        name = re.sub(
            r"^layers\.(\d)\.downsample",
            lambda match: f"stages.{int(match[1]) + 1}.downsample",
            name,
        )
        name = re.sub(r"^layers\.", "stages.", name).replace(".c.", ".conv.")
        if not name.startswith(("neck.", "head.", "norm_head.")):
            renamed[name] = weights
    _, unexpected = trunk.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert len(renamed) == len([name for name in trunk.state_dict() if "head" not in name])
    features = nn.Sequential(trunk.patch_embed, trunk.stages, encoder.neck)
    return features.eval()


def test_parameters_have_the_names_and_shapes_of_mobilesams_checkpoint(mobile: Any) -> None:
    """As ``mobile_sam/modeling/tiny_vit_sam.py`` and ``build_sam.py`` of ChaoningZhang/MobileSAM
    (2f77a48, d6c9073) make them.
    """
    shapes = {name: tuple(weights.shape) for name, weights in mobile.state_dict().items()}
    trunk = "image_encoder.layers"
    assert shapes["image_encoder.patch_embed.seq.0.c.weight"] == (32, 3, 3, 3)
    assert shapes["image_encoder.patch_embed.seq.2.bn.running_var"] == (64,)
    assert shapes[f"{trunk}.0.blocks.1.conv1.c.weight"] == (256, 64, 1, 1)
    assert shapes[f"{trunk}.0.blocks.1.conv2.c.weight"] == (256, 1, 3, 3)
    assert shapes[f"{trunk}.0.downsample.conv1.c.weight"] == (128, 64, 1, 1)
    assert shapes[f"{trunk}.1.blocks.0.attn.attention_biases"] == (4, 49)
    assert shapes[f"{trunk}.2.blocks.5.attn.attention_biases"] == (5, 196)
    assert shapes[f"{trunk}.2.blocks.5.local_conv.c.weight"] == (160, 1, 3, 3)
    assert shapes[f"{trunk}.3.blocks.1.mlp.fc1.weight"] == (1280, 320)
    assert shapes[f"{trunk}.3.blocks.1.attn.qkv.weight"] == (960, 320)
    assert f"{trunk}.3.downsample.conv1.c.weight" not in shapes
    assert not any("attention_bias_idxs" in name for name in shapes)
    assert shapes["image_encoder.norm_head.weight"] == (320,)
    assert shapes["image_encoder.head.weight"] == (1000, 320)
    assert shapes["image_encoder.neck.0.weight"] == (256, 320, 1, 1)
    assert shapes["image_encoder.neck.2.weight"] == (256, 256, 3, 3)
    assert shapes["image_encoder.neck.3.bias"] == (256,)
    assert shapes["mask_decoder.output_hypernetworks_mlps.3.layers.2.weight"] == (32, 256)
    assert len(shapes) == 439


def test_synthetic_weights_of_mobilesam_are_suitable_for_comparisons(mobile: Any) -> None:
    """No weight is zero or one, and features neither vanish nor explode."""
    for name, weights in mobile.state_dict().items():
        if weights.is_floating_point() and weights.numel() > 1:
            assert not ((weights == 0) | (weights == 1)).any(), name
    for block in mobile.image_encoder.layers[0].blocks:
        features = block(torch.randn(1, 64, 64, 64))
        assert 0.1 < features.std() < 10


def test_building_mobilesam_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    sam.build("vit_t")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["small", "mobile"])
def test_patches_leave_an_encoder_unchanged(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    encoder = getattr(model, "image_encoder", model)
    before = {name: weights.clone() for name, weights in encoder.state_dict().items()}
    modules = [(type(module), set(vars(module))) for module in encoder.modules()]
    with sam_vit.patched_image_encoder(encoder, "plain"):
        assert "forward" in vars(encoder)
    assert [(type(module), set(vars(module))) for module in encoder.modules()] == modules
    assert all(torch.equal(each, before[name]) for name, each in encoder.state_dict().items())


def graph_of(encoder: nn.Module, size: int, channels: int, folder: Path) -> onnx.ModelProto:
    """An encoder's graph, traced and simplified as the build does."""
    side = size // 16
    tensors = GraphTensors(
        (tensor("image", 1, 3, size, size),), (tensor("image_embed", 1, channels, side, side),)
    )
    patched = sam_vit.patched_image_encoder(encoder, "plain")
    raw, made = folder / "raw.onnx", folder / "encoder.onnx"
    export.write_traced(raw, Traceable(encoder, patched, tensors), 20)
    pairs = {"pairs": [[str(raw), str(made)]]}  # in a child process, which hides torch from itself
    child.run("tasks.simplify:simplify_graphs", pairs, folder / "log", verbose=False)
    return onnx.load(made)


def operators(graph: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in graph.graph.node}


def test_the_graph_of_a_vit_has_no_shape_operators_and_matches_the_vit(
    small: ImageEncoderViT, tmp_path: Path
) -> None:
    graph = graph_of(small, 384, 16, tmp_path)
    assert not operators(graph) & {*SHAPE_OPERATORS, "Erf", "Pow", "ReduceMean"}
    assert {"Gelu", "Gemm", "LayerNormalization"} <= operators(graph)
    assert difference_of_graph(tmp_path, small, 384) < 1e-5


@pytest.mark.slow
def test_the_graph_of_mobilesam_has_no_shape_operators_and_no_batch_norms(
    mobile: Any, tmp_path: Path
) -> None:
    graph = graph_of(mobile.image_encoder, 1024, 256, tmp_path)
    assert not operators(graph) & {*SHAPE_OPERATORS, "BatchNormalization", "Erf", "ReduceMean"}
    assert len(graph.graph.node) < 500
    assert difference_of_graph(tmp_path, mobile.image_encoder, 1024) < 1e-5


def difference_of_graph(folder: Path, encoder: nn.Module, size: int) -> float:
    """The difference between a graph's answer and PyTorch's."""
    import onnxruntime

    image = torch.randn(1, 3, size, size)
    session = onnxruntime.InferenceSession(
        folder / "encoder.onnx", providers=["CPUExecutionProvider"]
    )
    (answer,) = session.run(None, {"image": image.numpy()})
    return difference(torch.from_numpy(answer), encoder(image))


@pytest.mark.slow
@pytest.mark.parametrize("name", SAM_1[:3])
def test_an_encoder_of_full_size_matches_the_original(name: str) -> None:
    if name != "vit_b":
        # One block of each kind; the others repeat them.
        encoder = with_noise(sam.build(name).image_encoder)
        first_global = next(n for n, each in enumerate(encoder.blocks) if not each.window_size)
        encoder.blocks = nn.ModuleList([encoder.blocks[0], encoder.blocks[first_global]])
    else:
        encoder = with_noise(sam.build(name).image_encoder)
    assert difference_when_patched(encoder, torch.randn(1, 3, 1024, 1024)) < 1e-5

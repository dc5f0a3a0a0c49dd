"""Each export patch against what it replaces, with parameters that are not zero."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder
from torch import Tensor

from tasks.config.published import PUBLISHED
from tasks.inference.contract import contract_of
from tasks.model import decoder_patches, encoder_patches, load


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads gain little here, and wait long for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Of the others each test takes seconds.
SMALL = ("sam2_hiera_tiny", "sam2.1_hiera_tiny")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in PUBLISHED
    ],
)
def model(request: pytest.FixtureRequest) -> Iterator[SAM2Base]:
    """A model of each architecture with noise on every parameter."""
    with torch.no_grad():
        torch.manual_seed(1)
        model = load.build_model(request.param)
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape), alpha=0.02)
        yield model


@pytest.fixture(scope="module")
def decoder(model: SAM2Base) -> SAM2ImageDecoder:
    return SAM2ImageDecoder(model, multimask_output=True).eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_positional_embedding_is_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    side = model.image_size // 4
    expected = trunk._get_pos_embed((side, side))
    down, sources = encoder_patches.positional_embedding(trunk, side, side)
    assert difference((down @ sources).reshape(expected.shape), expected) < 1e-6


def test_a_positional_embedding_that_is_not_square_is_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    expected = trunk._get_pos_embed((32, 48))
    down, sources = encoder_patches.positional_embedding(trunk, 32, 48)
    assert difference((down @ sources).reshape(expected.shape), expected) < 1e-6


def test_the_trunk_is_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    image = torch.randn(1, 3, 256, 256)
    for found, expected in zip(encoder_patches.hiera(trunk)(image), trunk(image), strict=True):
        assert difference(found, expected) < 1e-5


def test_every_block_and_its_attention_is_the_original(model: SAM2Base) -> None:
    """On maps that fill no whole number of windows, so that padding is seen."""
    x = torch.randn(1, 40, 56, model.image_encoder.trunk.blocks[0].dim)
    for block in model.image_encoder.trunk.blocks:
        expected = block(x)
        assert difference(encoder_patches.block(block)(x), expected) < 1e-5
        inner = torch.randn(3, 8, 8, block.dim)
        mixed = block.attn(inner)
        for kind in ("plain", "fused"):
            found = encoder_patches.window_attention(block.attn, kind)(inner)
            assert difference(found, mixed) < 1e-5
        x = expected


def test_the_pyramid_is_the_original_with_the_convolutions_behind_it(model: SAM2Base) -> None:
    neck, head = model.image_encoder.neck, model.sam_mask_decoder
    channels = neck.backbone_channel_list[::-1]
    maps = [torch.randn(1, each, 64 >> level, 64 >> level) for level, each in enumerate(channels)]
    levels, _ = neck(list(maps))
    expected = [
        head.conv_s0(levels[0]),
        head.conv_s1(levels[1]),
        levels[2] + model.no_mem_embed.reshape(1, -1, 1, 1),
    ]
    after = {0: head.conv_s0, 1: head.conv_s1}
    found, _ = encoder_patches.feature_pyramid(neck, after, model.no_mem_embed)(maps)
    for each, original in zip(found, expected, strict=False):
        assert difference(each, original) < 1e-5


def test_a_pyramid_that_adds_to_every_level_keeps_its_convolutions_apart(model: SAM2Base) -> None:
    neck, head = model.image_encoder.neck, model.sam_mask_decoder
    maps = [
        torch.randn(1, each, 32 >> level, 32 >> level)
        for level, each in enumerate(neck.backbone_channel_list[::-1])
    ]
    original = neck.fpn_top_down_levels
    neck.fpn_top_down_levels = [0, 1, 2, 3]
    try:
        expected = head.conv_s0(neck(list(maps))[0][0])
        after = {0: head.conv_s0, 1: head.conv_s1}
        found = encoder_patches.feature_pyramid(neck, after, model.no_mem_embed)(maps)[0][0]
    finally:
        neck.fpn_top_down_levels = original
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("from_above", [[2, 3], [0, 1, 2, 3]])
def test_a_pyramid_of_larger_kernels_is_the_original(
    model: SAM2Base, from_above: list[int]
) -> None:
    neck, head = model.image_encoder.neck, model.sam_mask_decoder
    channels = neck.backbone_channel_list
    wide = FpnNeck(
        neck.position_encoding, neck.d_model, channels, kernel_size=3, padding=1,
        fpn_interp_model="nearest", fpn_top_down_levels=from_above,
    )  # fmt: skip
    maps = [torch.randn(1, each, 32 >> n, 32 >> n) for n, each in enumerate(channels[::-1])]
    levels, _ = wide(list(maps))
    expected = [head.conv_s0(levels[0]), head.conv_s1(levels[1])]
    after = {0: head.conv_s0, 1: head.conv_s1}
    found = encoder_patches.feature_pyramid(wide, after, model.no_mem_embed)(maps)[0]
    for each, original in zip(found, expected, strict=False):
        assert difference(each, original) < 1e-5


def test_points_of_every_label_are_embedded_as_the_original_does(
    decoder: SAM2ImageDecoder,
) -> None:
    coords = torch.rand(1, 6, 2) * 1024
    labels = torch.tensor([[1.0, 0.0, -1.0, 2.0, 3.0, 4.0]])
    expected = decoder._embed_points(coords.clone(), labels)
    assert difference(decoder_patches.point_embedding(decoder)(coords, labels), expected) < 1e-5


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_a_previous_mask_is_embedded_as_the_original_does(
    decoder: SAM2ImageDecoder, given: float
) -> None:
    mask, has_mask = torch.randn(1, 1, 256, 256) * 5, torch.tensor([given])
    expected = decoder._embed_masks(mask, has_mask).flatten(2).permute(0, 2, 1)[0]
    found = decoder_patches.mask_embedding(decoder)(mask, has_mask).expand(expected.shape)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("count", [1, 8, 40])
def test_the_decoders_attentions_are_the_original_for_few_and_many_tokens(
    model: SAM2Base, count: int
) -> None:
    transformer = model.sam_mask_decoder.transformer
    layer = transformer.layers[0]
    width = transformer.embedding_dim
    tokens, others = torch.randn(1, count, width), torch.randn(1, count, width)
    image, values = torch.randn(1, 256, width), torch.randn(1, 256, width)
    for attention, patch, inputs in (
        (layer.self_attn, decoder_patches.token_attention, (tokens, others, others)),
        (
            layer.cross_attn_token_to_image,
            decoder_patches.attention_to_image,
            (tokens, image, values),
        ),
        (
            transformer.final_attn_token_to_image,
            decoder_patches.attention_to_image,
            (tokens, image, image),
        ),
        (
            layer.cross_attn_image_to_token,
            decoder_patches.attention_from_image,
            (image, tokens, others),
        ),
    ):
        assert difference(patch(attention)(*inputs), attention(*inputs)) < 1e-5


def prompt(model: SAM2Base, points: int, has_mask: float) -> tuple[Tensor, ...]:
    inputs = [
        torch.randn(tensor.sizes(points))
        for tensor in contract_of(model, "multi")["decoder"].inputs
    ]
    inputs[3] = torch.rand(1, points, 2) * model.image_size
    inputs[4] = torch.arange(points)[None] % 2.0
    return (*inputs[:6], torch.tensor([has_mask]))


@pytest.mark.parametrize(("points", "has_mask"), [(1, 0.0), (3, 1.0)])
def test_the_three_masks_and_scores_are_the_originals(
    model: SAM2Base, decoder: SAM2ImageDecoder, points: int, has_mask: float
) -> None:
    inputs = prompt(model, points, has_mask)
    masks, scores = decoder(*inputs)
    with decoder_patches.patched_decoder(decoder, "multi"):
        found, found_scores = decoder(*inputs)
    assert difference(found, masks) < 1e-4
    assert difference(found_scores, scores) < 1e-5


def test_the_best_mask_is_the_one_of_the_highest_score(
    model: SAM2Base, decoder: SAM2ImageDecoder
) -> None:
    inputs = prompt(model, 2, 0.0)
    masks, scores = decoder(*inputs)
    with decoder_patches.patched_decoder(decoder, "best"):
        found, found_scores = decoder(*inputs)
    best = int(scores.argmax())
    assert difference(found, masks[:, best : best + 1]) < 1e-4
    assert difference(found_scores, scores[:, best : best + 1]) < 1e-5


@pytest.mark.parametrize("threshold", [0.0, 0.98, 2.0])
def test_the_single_mask_follows_the_models_stability_rule(
    model: SAM2Base, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """Thresholds that always keep the single mask, that decide, and that never keep it."""
    head = model.sam_mask_decoder
    assert head.dynamic_multimask_via_stability
    monkeypatch.setattr(head, "dynamic_multimask_stability_thresh", threshold)
    decoder = SAM2ImageDecoder(model, multimask_output=False).eval()
    inputs = prompt(model, 2, 0.0)
    masks, scores = decoder(*inputs)
    with decoder_patches.patched_decoder(decoder, "single"):
        found, found_scores = decoder(*inputs)
    assert difference(found, masks) < 1e-4
    assert difference(found_scores, scores) < 1e-5


def test_an_empty_single_mask_counts_as_stable(model: SAM2Base) -> None:
    masks = torch.full((1, 4, 8, 8), -5.0)
    scores = torch.tensor([[0.1, 0.2, 0.9, 0.3]])
    head = model.sam_mask_decoder
    expected = head._dynamic_multimask_via_stability(masks, scores)
    assert torch.equal(decoder_patches.stable_mask(head, masks, scores)[1], expected[1])
    assert expected[1].item() == pytest.approx(0.1)


def test_after_the_export_the_modules_are_as_they_were(
    model: SAM2Base, decoder: SAM2ImageDecoder
) -> None:
    encoder = SAM2ImageEncoder(model).eval()

    def own_attributes() -> list[set[str]]:
        return [set(vars(module)) for root in (encoder, decoder) for module in root.modules()]

    before = own_attributes()
    with (
        encoder_patches.patched_encoder(encoder, "plain"),
        decoder_patches.patched_decoder(decoder, "multi"),
    ):
        assert own_attributes() != before
    assert own_attributes() == before

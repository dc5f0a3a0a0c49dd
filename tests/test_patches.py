"""Each export patch compared with the code that it replaces, with nonzero parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnxruntime
import pytest
import torch
from sam2.modeling.backbones.image_encoder import FpnNeck
from sam2.modeling.sam2_base import SAM2Base
from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder
from torch import Tensor

from tasks import export
from tasks.clients.contract import traced_contract
from tasks.model import (
    decoder_attention,
    decoder_patches,
    encoder_patches,
    load,
    mask_prediction,
    prompt_embedding,
)
from tasks.model.families.family import Traceable
from tasks.model.published import PUBLISHED
from tasks.model.sam2_model import dimensions_of
from tasks.running import child


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads gain little here, and wait long for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Each test of the other sizes takes seconds. They have the same decoder: see below.
SMALL = ("sam2_hiera_tiny", "sam2.1_hiera_tiny")


def marks(name: str) -> list[pytest.MarkDecorator]:
    group = pytest.mark.xdist_group(f"patches-{name}")  # the architectures share nothing
    if name in SMALL:
        return [group]
    # SAM 2.1 has the encoders of SAM 2: tasks/model/recognition.py tells them apart elsewhere.
    return [group, pytest.mark.nightly if name.startswith("sam2.1_") else pytest.mark.slow]


def with_noise(name: str) -> SAM2Base:
    """A model with noise on every parameter."""
    torch.manual_seed(1)
    model = load.build_model(name)
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape), alpha=0.02)
    return model


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=marks(name)) for name in PUBLISHED]
)
def model(request: pytest.FixtureRequest) -> Iterator[SAM2Base]:
    """Each architecture, for its encoder."""
    with torch.no_grad():
        yield with_noise(request.param)


@pytest.fixture(scope="module", params=[pytest.param(name, marks=marks(name)) for name in SMALL])
def tiny(request: pytest.FixtureRequest) -> Iterator[SAM2Base]:
    """Tiny of both generations, for the decoder that all sizes of a generation share."""
    with torch.no_grad():
        yield with_noise(request.param)


@pytest.fixture(scope="module")
def decoder(tiny: SAM2Base) -> SAM2ImageDecoder:
    return SAM2ImageDecoder(tiny, multimask_output=True).eval()


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_the_positional_embedding_matches_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    side = model.image_size // 4
    expected = trunk._get_pos_embed((side, side))
    down, sources = encoder_patches.positional_embedding(trunk, side, side)
    assert difference((down @ sources).reshape(expected.shape), expected) < 1e-6


def test_a_positional_embedding_that_is_not_square_matches_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    expected = trunk._get_pos_embed((32, 48))
    down, sources = encoder_patches.positional_embedding(trunk, 32, 48)
    assert difference((down @ sources).reshape(expected.shape), expected) < 1e-6


def test_the_trunk_matches_the_original(model: SAM2Base) -> None:
    trunk = model.image_encoder.trunk
    image = torch.randn(1, 3, 256, 256)
    for found, expected in zip(
        encoder_patches.hiera_forward(trunk)(image), trunk(image), strict=True
    ):
        assert difference(found, expected) < 1e-5


def test_every_block_and_its_attention_match_the_original(model: SAM2Base) -> None:
    """On maps that do not divide into whole windows, so that padding matters."""
    x = torch.randn(1, 40, 56, model.image_encoder.trunk.blocks[0].dim)
    for block in model.image_encoder.trunk.blocks:
        expected = block(x)
        assert difference(encoder_patches.block_forward(block)(x), expected) < 1e-5
        inner = torch.randn(3, 8, 8, block.dim)
        mixed = block.attn(inner)
        for kind in ("plain", "fused"):
            found = encoder_patches.window_attention(block.attn, kind)(inner)
            assert difference(found, mixed) < 1e-5
        x = expected


def test_the_pyramid_with_the_convolutions_behind_it_matches_the_original(model: SAM2Base) -> None:
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


def test_a_pyramid_that_adds_to_every_level_keeps_its_convolutions_separate(
    model: SAM2Base,
) -> None:
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
def test_a_pyramid_with_larger_kernels_matches_the_original(
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


def test_every_size_has_the_decoder_of_tiny(
    model: SAM2Base, request: pytest.FixtureRequest
) -> None:
    """The tests below cover the patches of tiny's decoder."""
    name = request.node.callspec.params["model"]
    tiny = load.build_model(f"{name.partition('_')[0]}_hiera_tiny")
    assert described(model) == described(tiny)


def described(model: SAM2Base) -> list[object]:
    """The parts of a decoder, each with the plain values that it was constructed with."""
    parts = (model.sam_mask_decoder, model.sam_prompt_encoder)
    plain = (bool, int, float, str, tuple, type(None))
    return [
        (
            name,
            repr(part),
            {key: value for key, value in vars(part).items() if type(value) in plain},
        )
        for each in parts
        for name, part in each.named_modules()
    ]


def test_points_of_every_label_are_embedded_as_in_the_original(
    decoder: SAM2ImageDecoder,
) -> None:
    coords = torch.rand(2, 5, 2) * 1024
    labels = torch.tensor([[1.0, 0.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0, 2.0]])
    expected = decoder._embed_points(coords.clone(), labels)[:, :-1]  # without the padding point
    assert difference(prompt_embedding.point_embedding(decoder)(coords, labels), expected) < 1e-5


@pytest.mark.parametrize("given", [0.0, 1.0])
def test_a_previous_mask_is_embedded_as_in_the_original(
    decoder: SAM2ImageDecoder, given: float
) -> None:
    mask, has_mask = torch.randn(1, 1, 256, 256) * 5, torch.tensor([given])
    expected = decoder._embed_masks(mask, has_mask).flatten(2).permute(0, 2, 1)
    found = prompt_embedding.mask_embedding(decoder)(mask, has_mask).expand(expected.shape)
    assert difference(found, expected) < 1e-5


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("count", [1, 8, 40])
def test_the_decoders_attentions_match_the_original_for_few_and_many_tokens(
    tiny: SAM2Base, count: int, batch: int
) -> None:
    transformer = tiny.sam_mask_decoder.transformer
    layer = transformer.layers[0]
    width = transformer.embedding_dim
    bias = decoder_attention.PaddingBias()
    tokens, others = torch.randn(batch, count, width), torch.randn(batch, count, width)
    image, values = torch.randn(batch, 256, width), torch.randn(batch, 256, width)
    for attention, patched, inputs in (
        (
            layer.self_attn,
            decoder_attention.token_attention(layer.self_attn, bias),
            (tokens, tokens, tokens),
        ),
        (
            layer.self_attn,
            decoder_attention.token_attention(layer.self_attn, bias),
            (tokens, tokens, others),
        ),
        (
            layer.cross_attn_token_to_image,
            decoder_attention.attention_to_image(layer.cross_attn_token_to_image),
            (tokens, image, values),
        ),
        (
            transformer.final_attn_token_to_image,
            decoder_attention.attention_to_image(transformer.final_attn_token_to_image),
            (tokens, image, image),
        ),
        (
            layer.cross_attn_image_to_token,
            decoder_attention.attention_from_image(layer.cross_attn_image_to_token, bias),
            (image, tokens, others),
        ),
    ):
        assert difference(patched(*inputs), attention(*inputs)) < 1e-5


def prompt(
    model: SAM2Base, points: int, has_mask: float, prompts: int = 1, masks: int = 1
) -> tuple[Tensor, ...]:
    contract = traced_contract(dimensions_of(model), "points", "multi", "many")
    inputs = [
        torch.randn(tensor.sizes(num_points=points, num_prompts=prompts, mask_batch=masks))
        for tensor in contract["decoder"].inputs
    ]
    inputs[3] = torch.rand(prompts, points, 2) * model.image_size
    inputs[4] = torch.arange(points).repeat(prompts, 1) % 2.0
    return (*inputs[:6], torch.tensor([has_mask]))


def one_by_one(decoder: SAM2ImageDecoder, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """samexporter's answers to several prompts; outside a trace its modules take only one."""
    *features, coords, labels, masks, has_mask = inputs
    each_mask = masks.expand(len(coords), -1, -1, -1)
    answers = [
        decoder(
            *features, *(each[place : place + 1] for each in (coords, labels, each_mask)), has_mask
        )
        for place in range(len(coords))
    ]
    found, scores = (torch.cat(parts) for parts in zip(*answers, strict=True))
    return found, scores


@pytest.mark.parametrize(
    ("points", "has_mask", "prompts", "masks"),
    [(1, 0.0, 1, 1), (3, 1.0, 1, 1), (2, 0.0, 3, 1), (2, 1.0, 3, 1), (2, 1.0, 3, 3)],
)
def test_the_three_masks_and_scores_match_the_original(
    tiny: SAM2Base,
    decoder: SAM2ImageDecoder,
    points: int,
    has_mask: float,
    prompts: int,
    masks: int,
) -> None:
    inputs = prompt(tiny, points, has_mask, prompts, masks)
    expected, scores = one_by_one(decoder, inputs)
    with decoder_patches.patched_decoder(decoder, "multi", "points"):
        found, found_scores = decoder(*inputs)
    assert difference(found, expected) < 1e-4
    assert difference(found_scores, scores) < 1e-5


def test_ranked_masks_are_the_three_masks_sorted_by_score(
    tiny: SAM2Base, decoder: SAM2ImageDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = tiny.sam_mask_decoder.iou_prediction_head.layers[-1]
    raised = last.bias + torch.tensor([0.0, 0.0, 0.5, 1.0])  # so that the first is not the best
    monkeypatch.setattr(last, "bias", torch.nn.Parameter(raised))
    inputs = prompt(tiny, 2, 0.0, prompts=4)
    masks, scores = one_by_one(decoder, inputs)
    order = scores.argsort(dim=1, descending=True)
    assert (order[:, 0] != 0).any()
    with decoder_patches.patched_decoder(decoder, "ranked", "points"):
        found, found_scores = decoder(*inputs)
    sorted_masks = torch.stack([each[row] for each, row in zip(masks, order, strict=True)])
    assert difference(found, sorted_masks) < 1e-4
    assert difference(found_scores, scores.gather(1, order)) < 1e-5


def test_masks_with_equal_scores_keep_their_order() -> None:
    scores = torch.tensor([[0.5, 0.9, 0.5], [0.1, 0.1, 0.1], [0.3, 0.2, 0.3]])
    permuted = scores[:, None] @ mask_prediction.ranking(scores)
    assert permuted[:, 0].tolist() == scores.sort(dim=1, descending=True).values.tolist()
    places = torch.arange(3.0).expand(3, 1, 3) @ mask_prediction.ranking(scores)
    assert places[:, 0].tolist() == [[1, 0, 2], [0, 1, 2], [0, 2, 1]]


def test_points_with_label_minus_1_have_no_effect(
    tiny: SAM2Base, decoder: SAM2ImageDecoder
) -> None:
    """A prompt thus gets the same mask alone, beside longer ones, and from a client that pads."""
    inputs = list(prompt(tiny, 2, 0.0))
    padded = list(inputs)
    padded[3] = torch.cat([inputs[3], torch.rand(1, 2, 2) * 1024], dim=1)
    padded[4] = torch.cat([inputs[4], torch.tensor([[-1.0, -1.0]])], dim=1)
    with decoder_patches.patched_decoder(decoder, "multi", "points"):
        alone, padded_found = decoder(*inputs), decoder(*padded)
    assert difference(padded_found[0], alone[0]) < 1e-5
    assert difference(padded_found[1], alone[1]) < 1e-5
    original = decoder(*padded)
    assert difference(original[0], alone[0]) > 1e-3  # which counts it as one more point


def test_all_masks_are_the_single_mask_and_the_three_masks(
    tiny: SAM2Base, decoder: SAM2ImageDecoder
) -> None:
    inputs = prompt(tiny, 2, 0.0)
    three, scores = decoder(*inputs)
    size = torch.tensor([60, 100])
    with decoder_patches.patched_decoder(decoder, "all", "image size"):
        large, found_scores, small = decoder(*inputs, size)
    assert (large.shape, small.shape) == ((1, 4, 60, 100), (1, 4, 256, 256))
    assert difference(small[:, 1:], three) < 1e-4
    assert difference(found_scores[:, 1:], scores) < 1e-5
    enlarged = torch.nn.functional.interpolate(
        small, (60, 100), mode="bilinear", align_corners=False
    )
    assert difference(large, enlarged) < 1e-4


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("points", [0, 1, 3])
@pytest.mark.parametrize("boxed", [False, True])
def test_boxes_and_points_give_the_same_masks_as_corners(
    tiny: SAM2Base, decoder: SAM2ImageDecoder, prompts: int, points: int, boxed: bool
) -> None:
    if not (points or boxed):
        return
    inputs = prompt(tiny, points, 0.0, prompts)
    features, coords, labels = inputs[:3], inputs[3], inputs[4]
    boxes = torch.rand(prompts, 4) * tiny.image_size if boxed else torch.zeros(0, 4)
    corners = boxes.reshape(-1, 2, 2) if boxed else torch.zeros(prompts, 0, 2)
    codes = torch.tensor([[2.0, 3.0]]).repeat(prompts, 1)[:, : corners.shape[1]]
    joined = (torch.cat([corners, coords], dim=1), torch.cat([codes, labels], dim=1))
    expected, scores = one_by_one(decoder, (*features, *joined, inputs[5], torch.zeros(1)))
    fed = coords[None] if points else torch.zeros(1, 1, 0, 2)
    with decoder_patches.patched_decoder(decoder, "multi", "points and boxes"):
        found, found_scores, objects = decoder(*features, fed, labels[None].long(), boxes[None])
    assert difference(found[0], expected) < 1e-4
    assert difference(found_scores[0], scores) < 1e-5
    assert objects.shape == (1, prompts, 1)


def test_the_best_mask_has_the_highest_score(tiny: SAM2Base, decoder: SAM2ImageDecoder) -> None:
    inputs = prompt(tiny, 2, 0.0, prompts=3)
    masks, scores = one_by_one(decoder, inputs)
    with decoder_patches.patched_decoder(decoder, "best", "points"):
        found, found_scores = decoder(*inputs)
    best = scores.argmax(dim=1)
    expected = torch.stack([each[index] for each, index in zip(masks, best, strict=True)])
    assert difference(found[:, 0], expected) < 1e-4
    assert difference(found_scores[:, 0], scores.max(dim=1).values) < 1e-5


@pytest.mark.parametrize("threshold", [0.0, 0.98, 2.0])
def test_the_single_mask_follows_the_models_stability_rule(
    tiny: SAM2Base, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    """Thresholds that always, sometimes and never keep the single mask."""
    head = tiny.sam_mask_decoder
    assert head.dynamic_multimask_via_stability
    monkeypatch.setattr(head, "dynamic_multimask_stability_thresh", threshold)
    decoder = SAM2ImageDecoder(tiny, multimask_output=False).eval()
    inputs = prompt(tiny, 2, 0.0, prompts=2)
    masks, scores = one_by_one(decoder, inputs)
    with decoder_patches.patched_decoder(decoder, "single", "points"):
        found, found_scores = decoder(*inputs)
    assert difference(found, masks) < 1e-4
    assert difference(found_scores, scores) < 1e-5


def test_an_empty_single_mask_counts_as_stable(tiny: SAM2Base) -> None:
    masks = torch.full((1, 4, 8, 8), -5.0)
    scores = torch.tensor([[0.1, 0.2, 0.9, 0.3]])
    head = tiny.sam_mask_decoder
    expected = head._dynamic_multimask_via_stability(masks, scores)
    two = mask_prediction.stable_mask(head, masks[:, :2], scores[:, [0, 2]])
    assert torch.equal(two[1], expected[1])
    assert expected[1].item() == pytest.approx(0.1)


@pytest.fixture(scope="module")
def exported_decoder(
    tiny: SAM2Base, decoder: SAM2ImageDecoder, tmp_path_factory: pytest.TempPathFactory
) -> onnxruntime.InferenceSession:
    """The decoder for many prompts, as the build exports it."""
    folder = tmp_path_factory.mktemp("decoder")
    tensors = traced_contract(dimensions_of(tiny), "points", "ranked", "many")["decoder"]
    raw, made = folder / "raw.onnx", folder / "decoder.onnx"
    patched = decoder_patches.patched_decoder(decoder, "ranked", "points")
    export.write_traced(raw, Traceable(decoder, patched, tensors), 20)
    pairs = {"pairs": [[str(raw), str(made)]]}  # in a child process, which hides torch from itself
    child.run("tasks.simplify:simplify_graphs", pairs, folder / "log", verbose=False)
    return onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("prompts", "masks"), [(3, 2), (1, 2), (2, 3)])
def test_the_graph_refuses_masks_that_do_not_fit_the_prompts(
    exported_decoder: onnxruntime.InferenceSession, tiny: SAM2Base, prompts: int, masks: int
) -> None:
    inputs = prompt(tiny, 2, 1.0, prompts, masks)
    feeds = {
        each.name: values.numpy()
        for each, values in zip(exported_decoder.get_inputs(), inputs, strict=True)
    }
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        exported_decoder.run(None, feeds)


@pytest.mark.parametrize(("coords", "labels"), [((2, 2), (2, 3)), ((2, 2), (3, 2))])
def test_the_graph_refuses_labels_that_do_not_fit_the_points(
    exported_decoder: onnxruntime.InferenceSession,
    tiny: SAM2Base,
    coords: tuple[int, int],
    labels: tuple[int, int],
) -> None:
    inputs = list(prompt(tiny, 2, 0.0, 2))
    inputs[3], inputs[4] = torch.rand(*coords, 2), torch.ones(*labels)
    feeds = {
        each.name: values.numpy()
        for each, values in zip(exported_decoder.get_inputs(), inputs, strict=True)
    }
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        exported_decoder.run(None, feeds)


def test_the_patches_leave_the_modules_unchanged(model: SAM2Base) -> None:
    encoder = SAM2ImageEncoder(model).eval()
    decoder = SAM2ImageDecoder(model, multimask_output=True).eval()

    def own_attributes() -> list[set[str]]:
        return [set(vars(module)) for root in (encoder, decoder) for module in root.modules()]

    before = own_attributes()
    with (
        encoder_patches.patched_encoder(encoder, "plain"),
        decoder_patches.patched_decoder(decoder, "multi", "points"),
    ):
        assert own_attributes() != before
    assert own_attributes() == before

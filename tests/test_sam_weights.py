"""Checkpoints of SAM 1 and MobileSAM in common forms, read under segment-anything's names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from segment_anything import modeling
from torch import nn
from transformers import SamConfig, SamModel

from tasks.model import load, other_families, recognition, sam, weights
from tasks.model.published import SAM_1
from tasks.system.errors import StageError

Weights = dict[str, torch.Tensor]


def small_sam() -> modeling.Sam:
    """segment-anything's model with a ViT of few channels, for images of 160 pixels."""
    whole = sam.build("vit_b")
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            img_size=160,
            embed_dim=16,
            depth=2,
            num_heads=2,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=7,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=modeling.PromptEncoder(256, (10, 10), (160, 160), mask_in_chans=16),
        mask_decoder=whole.mask_decoder,
    ).eval()


@pytest.fixture(scope="module")
def own() -> Weights:
    """A small model's weights under segment-anything's names, no two alike."""
    noise = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(each.shape, generator=noise) / 10
        for name, each in small_sam().state_dict().items()
    }


def under(prefix: str, own: Weights) -> Weights:
    return {f"{prefix}{name}": each for name, each in own.items()}


# The decoder of micro-sam's automatic segmentation, a UNETR of torch_em.
AUTOMATIC = {"decoder.blocks.0.block.0.weight": torch.ones(2, 2), "out_conv.weight": torch.ones(3)}

FORMS: dict[str, Callable[[Weights, Path], Any]] = {
    "Meta's": lambda own, path: torch.save(own, path),
    "micro-sam's trainer": lambda own, path: torch.save(
        {
            "iteration": 25_000,
            "best_metric": 0.2,
            "model_state": under("sam.", own),
            "optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []},
            "timestamp": "01-01-2026 (00:00:00)",
        },
        path,
    ),
    "micro-sam's trainer, compiled": lambda own, path: torch.save(
        {"model_state": under("_orig_mod.sam.", own)}, path
    ),
    "exported by micro-sam": lambda own, path: torch.save(
        {"model_state": own, "decoder_state": AUTOMATIC}, path
    ),
    "safetensors": lambda own, path: save_file(own, path),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_the_same_in_each_form(form: str, own: Weights, tmp_path: Path) -> None:
    FORMS[form](own, tmp_path / "weights.pt")
    read = weights.read(tmp_path / "weights.pt")
    assert read.keys() == own.keys()
    assert all(torch.equal(read[name], own[name]) for name in own)


@pytest.mark.parametrize("prefix", ["", "sam."])
def test_a_decoder_for_automatic_segmentation_is_left_out_with_a_message(
    prefix: str, own: Weights, tmp_path: Path
) -> None:
    content = {"model_state": under(prefix, own), "decoder_state": AUTOMATIC}
    torch.save(content, tmp_path / "vit_b_lm.pt")
    choice = weights.choose(tmp_path / "vit_b_lm.pt")
    assert choice.weights.keys() == own.keys()
    assert choice.note == (
        f"took the weights under `model_state.{prefix}`, and left out those under "
        "`decoder_state.`. Those are micro-sam's for automatic segmentation, which is not exported."
    )


class OfTheTrainer:
    """Stands for an object that micro-sam's trainer pickles beside the weights."""


def test_objects_of_micro_sams_trainer_are_refused_with_advice_on_saving_again(
    own: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import types

    name = "micro_sam.training.util"
    for part in ("micro_sam", "micro_sam.training", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setattr(OfTheTrainer, "__module__", name)
    monkeypatch.setattr(sys.modules[name], "OfTheTrainer", OfTheTrainer, raising=False)
    content = {"model_state": under("sam.", own), "init": {"train_dataset": OfTheTrainer()}}
    torch.save(content, tmp_path / "best.pt")
    with pytest.raises(StageError) as error:
        weights.read(tmp_path / "best.pt")
    assert "best.pt holds more than tensors, and loading that could run code" in str(error.value)
    assert "it names micro_sam.training.util.OfTheTrainer" in str(error.value)
    assert "use micro_sam.util.export_custom_sam_model" in str(error.value)


# --- transformers ---


@pytest.fixture(scope="module")
def of_transformers() -> SamModel:
    """transformers' own model of the same sizes as `small_sam`, with random weights."""
    torch.manual_seed(3)
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 160,
            "window_size": 7,
            "global_attn_indexes": [1],
            "mlp_dim": 64,
        },
        prompt_encoder_config={"image_size": 160, "image_embedding_size": 10},
    )
    model = SamModel(config).eval()
    with torch.no_grad():
        for each in model.state_dict().values():
            each.copy_(torch.randn(each.shape) / 10)
    return model


@pytest.mark.parametrize("form", ["save_pretrained", "state dict"])
def test_a_transformers_model_gives_the_same_answers_in_segment_anything(
    form: str, of_transformers: SamModel, tmp_path: Path
) -> None:
    if form == "save_pretrained":
        of_transformers.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
    else:
        path = tmp_path / "model.pt"
        torch.save(of_transformers.state_dict(), path)
    model = small_sam()
    model.load_state_dict(weights.read(path))
    image = torch.randn(1, 3, 160, 160)
    points, labels = torch.tensor([[[40.0, 90.0], [120.0, 30.0]]]), torch.tensor([[1, 0]])
    box, mask = torch.tensor([[20.0, 30.0, 100.0, 140.0]]), torch.randn(1, 1, 40, 40)
    with torch.no_grad():
        answer = of_transformers(
            pixel_values=image,
            input_points=points[None],
            input_labels=labels[None],
            input_boxes=box[None],
            input_masks=mask,
        )
        embedding = model.image_encoder(image)
        sparse, dense = model.prompt_encoder((points, labels), box, mask)
        masks, scores = model.mask_decoder(
            embedding, model.prompt_encoder.get_dense_pe(), sparse, dense, multimask_output=True
        )
    expected = of_transformers.get_image_embeddings(image)
    assert torch.allclose(embedding, expected, rtol=1e-4, atol=1e-5)
    assert torch.allclose(masks, answer.pred_masks[0], rtol=1e-4, atol=1e-4)
    assert torch.allclose(scores, answer.iou_scores[0], rtol=1e-4, atol=1e-5)


def test_two_positional_embeddings_that_differ_are_refused(
    of_transformers: SamModel, tmp_path: Path
) -> None:
    content = {name: each.clone() for name, each in of_transformers.state_dict().items()}
    content["shared_image_embedding.positional_embedding"][0, 0] += 1e-3
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(StageError, match="two positional embeddings that differ"):
        weights.read(tmp_path / "model.pt")


# --- which architecture ---


def shapes_of(name: str) -> recognition.Shapes:
    """The shapes of an architecture's weights; segment-anything's models are built without data."""
    with torch.device("meta" if name in ("vit_b", "vit_l", "vit_h") else "cpu"):
        return recognition.shapes_of(load.build_model(name).state_dict())


@pytest.mark.parametrize("name", SAM_1)
def test_an_architecture_is_recognized_by_its_weights(name: str) -> None:
    shapes = shapes_of(name)
    assert recognition.name_of(shapes) == name
    assert other_families.family_of(shapes) is None


def test_a_hiera_of_the_size_of_a_vit_is_not_mistaken_for_a_vit() -> None:
    shapes = {"image_encoder.trunk.patch_embed.proj.weight": (768, 3, 7, 7)}
    shapes |= {f"image_encoder.trunk.blocks.{block}.norm1.weight": (768,) for block in range(12)}
    assert recognition.name_of(shapes) is None


def test_a_vit_of_another_size_is_refused_with_its_size(own: Weights, tmp_path: Path) -> None:
    torch.save(own, tmp_path / "small.pt")
    with pytest.raises(StageError) as error:
        load.load_model("auto", tmp_path / "small.pt")
    assert "found a ViT 16 wide with 2 blocks" in str(error.value)
    assert "SAM 1's vit_b (768 wide, 12 blocks), vit_l" in str(error.value)


def weights_of(name: str) -> Weights:
    """Weights with an architecture's shapes that take no memory: each repeats a single number."""
    return {each: torch.zeros(()).expand(shape) for each, shape in shapes_of(name).items()}


@pytest.mark.parametrize("table", ["auto", "sam2.1_hiera_tiny"])
@pytest.mark.parametrize("name", ["vit_b", "vit_t"])
def test_sam_1_weights_in_a_sam_2_table_are_refused_with_the_right_model_type(
    table: str, name: str, tmp_path: Path
) -> None:
    torch.save(weights_of(name), tmp_path / "sam.pt")
    with pytest.raises(StageError) as error:
        load.load_model(table, tmp_path / "sam.pt")
    assert str(error.value).endswith(
        f'sam.pt has weights of SAM 1 ({name}), not of SAM 2: put `model_type = "{name}"` in the '
        "table."
    )


def test_sam_2_weights_in_a_sam_1_table_are_refused_with_the_right_model_type(
    tmp_path: Path,
) -> None:
    torch.save({"model": weights_of("sam2.1_hiera_tiny")}, tmp_path / "tiny.pt")
    with pytest.raises(StageError, match=r'put `model_type = "sam2.1_hiera_tiny"` in the table'):
        load.load_model("vit_b", tmp_path / "tiny.pt")


def test_an_encoder_of_another_size_than_configured_is_identified(tmp_path: Path) -> None:
    torch.save({"model_state": under("sam.", weights_of("vit_l"))}, tmp_path / "best.pt")
    with pytest.raises(StageError, match=r"does not fit vit_b: .* Its weights fit vit_l"):
        load.load_model("vit_b", tmp_path / "best.pt")


def test_mixed_weights_of_two_families_are_refused(own: Weights, tmp_path: Path) -> None:
    torch.save({"model": {**own, **weights_of("sam2.1_hiera_tiny")}}, tmp_path / "both.pt")
    with pytest.raises(StageError) as error:
        weights.read(tmp_path / "both.pt")
    assert "both.pt holds weights of SAM 1 (image_encoder." in str(error.value)
    assert " and SAM 2 (image_encoder.trunk." in str(error.value)
    assert "Save only the one to export" in str(error.value)


def test_a_file_with_models_of_two_families_is_refused(own: Weights, tmp_path: Path) -> None:
    content = {"sam": own, "sam2": weights_of("sam2.1_hiera_tiny")}
    torch.save(content, tmp_path / "two.pt")
    with pytest.raises(StageError, match=r"holds 2 models, with weights under `sam.` and `sam2.`"):
        weights.read(tmp_path / "two.pt")


# --- a model with its weights ---


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic weights of MobileSAM."""
    path = tmp_path_factory.mktemp("mobile") / "mobile.pt"
    load.make_synthetic("vit_t", 1, str(path))
    return path


def is_of_classifier(name: str) -> bool:
    return name.startswith(("image_encoder.norm_head.", "image_encoder.head."))


@pytest.mark.parametrize("classifier", ["with", "without"])
def test_mobilesam_loads_with_and_without_the_weights_of_a_classifier(
    classifier: str, mobile: Path, tmp_path: Path
) -> None:
    content = weights.read(mobile)
    if classifier == "without":
        content = {name: each for name, each in content.items() if not is_of_classifier(name)}
        assert len(content) == 439 - 4
    torch.save(content, tmp_path / "mobile.pt")
    model = load.load_model("vit_t", tmp_path / "mobile.pt")
    for name, each in model.state_dict().items():
        assert is_of_classifier(name) or torch.equal(each, content[name])


def test_mobilesams_attention_uses_the_loaded_distances(mobile: Path) -> None:
    """Its code builds a table of them when it is constructed, and would use the initial zeros."""
    attention = load.load_model("vit_t", mobile).image_encoder.layers[1].blocks[0].attn
    expected = attention.attention_biases[:, attention.attention_bias_idxs]
    assert torch.equal(attention.ab, expected)
    assert not (attention.ab == 0).any()


def test_unexpected_weights_in_a_mobilesam_file_are_refused(mobile: Path, tmp_path: Path) -> None:
    content = weights.read(mobile)
    content["image_encoder.layers.3.blocks.2.attn.norm.weight"] = torch.ones(320)
    torch.save(content, tmp_path / "mobile.pt")
    with pytest.raises(StageError, match="does not fit vit_t: 1 unexpected keys"):
        load.load_model("vit_t", tmp_path / "mobile.pt")


@pytest.mark.slow
def test_vit_b_loads_from_a_micro_sam_file(tmp_path: Path) -> None:
    load.make_synthetic("vit_b", 1, str(tmp_path / "synthetic.pt"))
    content = weights.read(tmp_path / "synthetic.pt")
    for name, each in content.items():
        assert each.numel() == 1 or not (each == 0).all(), name
    file = {"model_state": under("sam.", content), "decoder_state": AUTOMATIC}
    torch.save(file, tmp_path / "vit_b_lm.pt")
    model = load.load_model("vit_b", tmp_path / "vit_b_lm.pt")
    assert isinstance(model, modeling.Sam)
    assert all(torch.equal(each, content[name]) for name, each in model.state_dict().items())

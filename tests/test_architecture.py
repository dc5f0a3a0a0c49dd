"""Custom architectures: a YAML of sam2's classes is built like the rest, anything else refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from project import ROOT, Project

from demo.scenes import scene
from tasks import architecture, sam2_model, truth
from tasks.child import StageError

NARROW = ROOT / "tests/narrow.yaml"
PARTS = ("encoder", "decoder")


@pytest.fixture(scope="module")
def built(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """512 pixels, built, verified, proven in the browser on WASM and deployed."""
    project = Project(tmp_path_factory.mktemp("custom") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    (project.root / "narrow.yaml").write_text(NARROW.read_text())
    project.configure(
        "[browser]\nenabled = true\nwebgpu = false\n"
        '[models.narrow]\nconfig = "narrow.yaml"\nurl = "synthetic:?seed=2"\n'
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


def manifest(project: Project) -> dict[str, Any]:
    path = project.root / "public/onnx-models/sam/narrow/manifest.json"
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_every_shape_follows_from_the_files_input_size_and_widths(built: Project) -> None:
    content = manifest(built)
    assert (content["model_type"], content["config"]) == (None, "narrow.yaml")
    shapes = {
        tensor["name"]: tensor["shape"]
        for part in PARTS
        for kind in ("inputs", "outputs")
        for tensor in content[part][kind]
    }
    assert shapes == {
        "image": [1, 3, 512, 512],
        "high_res_feats_0": [1, 12, 128, 128],
        "high_res_feats_1": [1, 24, 64, 64],
        "image_embed": [1, 96, 32, 32],
        "point_coords": [1, "num_points", 2],
        "point_labels": [1, "num_points"],
        "mask_input": [1, 1, 128, 128],
        "has_mask_input": [1],
        "masks": [1, 3, 128, 128],
        "iou_predictions": [1, 3],
    }


def test_it_is_verified_and_proven_like_the_rest(built: Project) -> None:
    content = manifest(built)
    assert max(content["verification"]["encoder"].values()) < 1e-4
    assert content["browser"]["providers"]["wasm"]["mask_iou"] >= 0.999


def test_its_encoder_is_folded_like_the_rest(built: Project) -> None:
    path = built.root / "public/onnx-models/sam/narrow/encoder.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"Shape", "Range", "Mod", "If", "Loop", "Tile", "Resize"}


def test_its_masks_can_be_compared_with_the_truth(built: Project) -> None:
    graphs = [str(built.root / f"build/models/narrow/{part}.onnx") for part in PARTS]
    found = truth.measure(*graphs, draw=scene, seeds=range(2), objects=2)
    assert (found["images"], found["objects"]) == (2, 4)
    assert set(found["iou"]) == {"1 click", "2 clicks", "3 clicks", "box"}
    assert all(0 <= iou < 0.5 for iou in found["iou"].values())  # its weights are random


def test_another_yaml_reruns_the_model_from_its_synthetic_checkpoint_on(built: Project) -> None:
    assert built.build().ran == set()
    file = built.root / "narrow.yaml"
    file.write_text(file.read_text().replace("stages: [1, 2, 3, 2]", "stages: [1, 1, 2, 1]"))
    # Five blocks now, so that of global attention has another number.
    file.write_text(file.read_text().replace("global_att_blocks: [7]", "global_att_blocks: [4]"))
    outcome = built.build("simplify:narrow")
    assert outcome.status == 0, outcome.output
    assert outcome.ran == {"checkpoint:narrow", "export:narrow", "simplify:narrow"}


def refusal(tmp_path: Path, before: str, after: str) -> str:
    """Why the narrow model is refused with one line changed."""
    text = NARROW.read_text()
    assert before in text
    file = tmp_path / "changed.yaml"
    file.write_text(text.replace(before, after, 1))
    with pytest.raises(StageError) as error:
        architecture.build(file)
    return str(error.value).removeprefix(f"{file} ")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "sam2x.Hiera",
        "sam2.build_sam.build_sam2",  # a function
        "sam2.build_sam.torch.load",  # not sam2's, though reached through it
        "sam2.modeling.sam2_base.NoSuchClass",
    ],
)
def test_a_target_that_is_no_class_of_sam2_is_refused_and_never_called(
    tmp_path: Path, target: str
) -> None:
    message = refusal(tmp_path, "sam2.modeling.backbones.hieradet.Hiera", target)
    assert message.startswith(f"model.image_encoder.trunk._target_: found '{target}'; allowed: a c")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            "embed_dim: 32",
            "embed_dimm: 32",
            "does not describe a model: model.image_encoder.trunk: Error in call to target "
            "'sam2.modeling.backbones.hieradet.Hiera': TypeError(\"Hiera.__init__() got an "
            "unexpected keyword argument 'embed_dimm'\")",
        ),
        (
            "use_high_res_features_in_sam: true",
            "use_high_res_features_in_sam: false",
            "model.use_high_res_features_in_sam: found False; allowed: true",
        ),
        (
            "image_size: 512",
            "image_size: 500",
            "model.image_size: found 500; allowed: a multiple of 32",
        ),
        ("scalp: 1", "scalp: 0", "model.image_encoder.scalp: found 0; allowed: one that leaves 3"),
        (
            "directly_add_no_mem_embed: true",
            "directly_add_no_mem_embed: false",
            "model.directly_add_no_mem_embed: found False; allowed: true",
        ),
        ("model:", "modell:", "model: found NoneType; allowed: a table with a _target_"),
        ("embed_dim: 32", "embed_dim: [32", "is not a readable YAML file"),
        ("embed_dim: 32", "embed_dim: ${nothing}", "is not a readable YAML file"),
    ],
)
def test_what_cannot_be_built_or_exported_is_refused_with_its_key(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    assert complaint in refusal(tmp_path, before, after)


def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"there is no file .*none.yaml"):
        architecture.build(tmp_path / "none.yaml")


def test_a_checkpoint_that_does_not_fit_the_file_names_both_and_the_tensors(
    tmp_path: Path,
) -> None:
    wider = tmp_path / "wider.yaml"
    wider.write_text(NARROW.read_text().replace("stages: [1, 2, 3, 2]", "stages: [1, 2, 4, 2]"))
    weights = sam2_model.build(str(NARROW)).state_dict()
    torch.save({"model": weights}, tmp_path / "narrow.pt")
    with pytest.raises(StageError) as error:
        sam2_model.load(str(wider), tmp_path / "narrow.pt")
    assert f"narrow.pt does not fit {wider}: " in str(error.value)
    assert "missing keys (image_encoder.trunk.blocks." in str(error.value)


def test_half_precision_weights_are_cast_to_the_models_own(tmp_path: Path) -> None:
    weights = sam2_model.build(str(NARROW)).state_dict()
    torch.save({"model": {n: v.half() for n, v in weights.items()}}, tmp_path / "half.pt")
    model = sam2_model.load(str(NARROW), tmp_path / "half.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_single_mask_follows_the_stability_rule_as_sam2s_own_builder_sets_it() -> None:
    decoder = architecture.build(NARROW).sam_mask_decoder
    assert decoder.dynamic_multimask_via_stability is True
    assert decoder.dynamic_multimask_stability_thresh == 0.98

"""Graphs from transformers' checkpoints, compared with transformers' own forward pass.

That implementation shares no code with sam2's, from which the graphs are traced. The demo's weights
are the same in every form, and under transformers' names give the same graphs, byte for byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from project import ROOT, Project
from safetensors.torch import save_file
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoModel

from tasks.drawing.scenes import scene
from tasks.inference.preprocessing import Placement, preprocess
from tasks.model import load, weights

pytestmark = pytest.mark.slow

Array = NDArray[Any]

# The largest differences from transformers, as config/models.toml has them for `verify`.
FEATURES, MASKS, SCORES = 1e-4, 1e-3, 1e-4
FORMS = ("bare", "parallel", "safetensors")
YAML = "demo/sam2_demo.yaml"


def with_random_weights(model: Any) -> Any:
    """A transformers model without zero weights, with one positional embedding.

    A new one has two that differ; sam2 has no such model.
    """
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.02)
        embedding = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(embedding)
    return model.eval()


@pytest.fixture(scope="module")
def image_model() -> Any:
    torch.manual_seed(0)
    return with_random_weights(Sam2Model(Sam2Config()))


@pytest.fixture(scope="module")
def video_model() -> Any:
    torch.manual_seed(0)
    model = with_random_weights(Sam2VideoModel(Sam2VideoConfig()))
    with torch.no_grad():  # it returns no mask of an absent object
        model.mask_decoder.pred_obj_score_head.proj_out.bias.add_(10)
    return model


@pytest.fixture(scope="module")
def edgetam(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' EdgeTAM; the synthetic statistics of batch norms must fit the weights."""
    checkpoint = tmp_path_factory.mktemp("edgetam") / "edgetam.pt"
    load.make_synthetic("edgetam", 1, str(checkpoint))
    return huggingface.build(load.load_model("edgetam", checkpoint))


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, image_model: Any, video_model: Any, edgetam: Any
) -> Project:
    project = Project(tmp_path_factory.mktemp("forms") / "project", cheap=False)
    own = weights.read(ROOT / "demo/sam2_demo.pt")
    torch.save(own, project.root / "bare")
    parallel = {f"module.{name}": tensor for name, tensor in own.items()}
    torch.save({"model_state": parallel, "step": 7}, project.root / "parallel")
    save_file(own, project.root / "safetensors")
    # The demo's model has no object score; transformers has no such model.
    (project.root / "renamed").mkdir()
    renamed = {name: each.contiguous() for name, each in huggingface.renamed(own).items()}
    save_file(renamed, project.root / "renamed/model.safetensors")
    image_model.save_pretrained(project.root / "image")
    video_model.save_pretrained(project.root / "video")
    edgetam.save_pretrained(project.root / "edgetam")
    text = f'[models.meta]\nconfig = "{YAML}"\nurl = "demo/sam2_demo.pt"\n'
    text += f'[models.renamed]\nconfig = "{YAML}"\nurl = "renamed"\n'
    text += "".join(f'[models.{each}]\nurl = "{each}"\n' for each in ("image", "video", "edgetam"))
    text += '[models.small]\nurl = "image"\nimage_size = 512\n'
    project.configure("[browser]\nenabled = false\n" + text)
    outcome = project.build("-n", "2", "export", "simplify:edgetam", "deploy:small")
    assert outcome.status == 0, outcome.output
    return project


def graphs(project: Project, name: str) -> dict[str, Path]:
    folder = project.root / f"build/models/{name}/exported"
    return {each: folder / f"{each}.onnx" for each in ("encoder", "decoder")}


@pytest.mark.parametrize("form", FORMS)
def test_the_demos_weights_are_the_same_in_each_form(built: Project, form: str) -> None:
    read = weights.read(built.root / form)
    expected = weights.read(ROOT / "demo/sam2_demo.pt")
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor), name


def test_the_demos_weights_give_the_same_graphs_under_transformers_names(built: Project) -> None:
    expected, renamed = graphs(built, "meta"), graphs(built, "renamed")
    assert all(renamed[name].read_bytes() == expected[name].read_bytes() for name in expected)


PROMPTS = {
    "a click": ([[400.0, 380.0]], [1]),
    "two clicks": ([[400.0, 380.0], [700.0, 600.0]], [1, 0]),
}


def run(path: Path, **feeds: Array) -> dict[str, Array]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def assert_equal(files: dict[str, Path], forward: Any) -> None:
    """Compare an encoder and a decoder with a transformers model, on an image and prompts."""
    image = preprocess(scene(16, 1024).image, Placement(1024, 1024, 1024, "stretch"))
    features = run(files["encoder"], image=image)
    for name, (points, labels) in PROMPTS.items():
        with torch.inference_mode():
            expected = forward(
                pixel_values=torch.from_numpy(image),
                input_points=torch.tensor([[points]]),
                input_labels=torch.tensor([[labels]]),
                multimask_output=True,
            )
        for level, each in enumerate(("high_res_feats_0", "high_res_feats_1", "image_embed")):
            right = expected.image_embeddings[level].numpy()
            assert np.abs(features[each] - right).max() <= FEATURES * np.abs(right).max()
        found = run(
            files["decoder"],
            **features,
            point_coords=np.array([points], np.float32),
            point_labels=np.array([labels], np.float32),
            mask_input=np.zeros((1, 1, 256, 256), np.float32),
            has_mask_input=np.zeros(1, np.float32),
        )
        scores, masks = found["iou_predictions"][0], found["masks"][0]
        right = expected.iou_scores.numpy().ravel()
        assert np.abs(scores - right).max() <= SCORES, name
        right = expected.pred_masks.numpy().reshape(-1, *masks.shape[1:])
        if len(right) == 1:  # the video model returns only the best
            masks = masks[[scores.argmax()]]
        right = np.clip(right, -32, 32)  # as sam2's predictor clips them
        assert np.abs(np.clip(masks, -32, 32) - right).max() <= MASKS, name


def test_graphs_from_an_image_models_folder_match_transformers(
    built: Project, image_model: Any
) -> None:
    assert_equal(graphs(built, "image"), image_model)


def test_graphs_from_a_video_models_folder_match_transformers(
    built: Project, video_model: Any
) -> None:
    assert_equal(graphs(built, "video"), video_model._single_frame_forward)


def test_graphs_from_edgetams_folder_match_transformers(built: Project, edgetam: Any) -> None:
    folder = built.root / "build/models/edgetam"
    assert_equal({each: folder / f"{each}.onnx" for each in ("encoder", "decoder")}, edgetam)


def test_a_model_of_another_image_size_is_compared_with_its_native_size(
    built: Project,
) -> None:
    manifest = json.loads((built.root / "public/onnx-models/sam/small/manifest.json").read_text())
    assert manifest["model_type"] == "sam2.1_hiera_tiny"  # recognized
    (image,) = manifest["encoder"]["inputs"]
    assert image["shape"] == [1, 3, 512, 512]
    shapes = {each["name"]: each["shape"] for each in manifest["decoder"]["outputs"]}
    assert shapes["masks"][-2:] == [128, 128]
    native = manifest["verification"]["native"]
    assert native["image_size"] == 1024
    assert 0 < native["mask_iou"]["worst"] <= native["mask_iou"]["mean"] < 1

"""SAM 1's graphs match segment-anything's own predictor, in each client's form."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from tasks import export
from tasks.clients.client import Client
from tasks.clients.contract import Precision
from tasks.clients.registry import CLIENTS
from tasks.inference import reference
from tasks.inference.cases import Case, cases_for
from tasks.inference.graph_file import tensors_of
from tasks.inference.naming import RenamedGraph, write_renamed
from tasks.inference.prompts import natural_image
from tasks.inference.reference import Reference
from tasks.inference.sessions import (
    Encoder,
    Predictions,
    PromptedImage,
    differences,
    run_graphs,
)
from tasks.model import sam, sam_graphs
from tasks.model.decoder_attention import PaddingBias
from tasks.model.families.sam import FAMILY
from tasks.proof.judgement import largest_differences, violations
from tasks.running import child
from tasks.variant import ConversionRequest, convert

SIZE, WIDTH = 256, 32
SAM_CLIENTS = [client for client in CLIENTS.values() if client.layout == "sam"]


class SmallSam(Reference):
    """A small model of segment-anything's classes, with random weights."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        side = SIZE // 16
        self.model = Sam(
            ImageEncoderViT(
                img_size=SIZE,
                embed_dim=WIDTH,
                depth=2,
                num_heads=2,
                out_chans=64,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=7,
                global_attn_indexes=(1,),
            ),
            PromptEncoder(64, (side, side), (SIZE, SIZE), mask_in_chans=16),
            MaskDecoder(
                transformer_dim=64,
                transformer=TwoWayTransformer(2, 64, num_heads=8, mlp_dim=2048),
                num_multimask_outputs=3,
            ),
        ).eval()
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for tensor in self.model.state_dict().values():
                tensor.add_(torch.randn(tensor.shape, generator=noise), alpha=0.05)
        sam.randomize(self.model, noise)
        self.family, self.architecture = FAMILY, "small"
        self.dimensions = FAMILY.dimensions_of(self.model)


@pytest.fixture(scope="module")
def pytorch() -> SmallSam:
    return SmallSam()


def write_graphs(pytorch: SmallSam, client: Client, folder: Path) -> dict[str, Path]:
    """Encoder and decoder of a client, as export and simplify write them."""
    traced = {
        "encoder": sam_graphs.encoder(pytorch.model, "plain"),
        "decoder": sam_graphs.decoder(
            pytorch.model, client.interface, client.masks[0], client.prompts[0]
        ),
    }
    paths = {}
    for name, each in traced.items():
        shared, paths[name] = folder / f"shared-{name}.onnx", folder / f"{name}.onnx"
        export.write_traced(shared, each, 20)
        export.declare_fixed_sizes(shared, each.tensors)
        write_renamed(RenamedGraph(shared, paths[name], client.names(name)))
    return paths


def cases(pytorch: SmallSam, client: Client) -> list[Case]:
    many = client.prompts[0] == "many"
    return cases_for(pytorch, client, client.masks[0], many, None)


def answers(paths: dict[str, Path], client: Client, cases: list[Case]) -> list[Predictions]:
    graphs = {name: str(path) for name, path in paths.items()}
    return run_graphs(graphs, [each.prompted for each in cases], client)


def largest(answers: list[Predictions], cases: list[Case]) -> dict[str, float]:
    figures = [
        largest_differences(differences(actual, case.expected))
        for actual, case in zip(answers, cases, strict=True)
    ]
    return {name: max(each[name] for each in figures) for name in figures[0]}  # type: ignore[type-var,misc]


@pytest.mark.parametrize("client", SAM_CLIENTS, ids=[each.name for each in SAM_CLIENTS])
def test_the_graphs_of_each_client_match_segment_anything(
    client: Client, pytorch: SmallSam, tmp_path: Path
) -> None:
    paths = write_graphs(pytorch, client, tmp_path)
    contract = client.contract(pytorch.dimensions, client.masks[0], client.prompts[0])
    assert violations(contract, {name: tensors_of(str(path)) for name, path in paths.items()}) == []
    wanted = cases(pytorch, client)
    found = largest(answers(paths, client, wanted), wanted)
    assert found["encoder"] < 1e-5
    assert found["masks"] < 1e-4
    assert found["scores"] < 1e-5
    masks = [each for case in wanted for each in case.expected.masks.values()]
    assert {bool(each.any()) for mask in masks for each in mask > 0} == {True}


@pytest.mark.parametrize("precision", ["fp16", "q8"])
def test_an_encoder_with_smaller_weights_takes_a_canvas_too(
    precision: Precision, pytorch: SmallSam, tmp_path: Path
) -> None:
    client = CLIENTS["anylabeling (sam)"]
    exact = write_graphs(pytorch, client, tmp_path)["encoder"]
    shared, smaller = tmp_path / "shared-encoder.onnx", tmp_path / "smaller.onnx"
    own = RenamedGraph(smaller, tmp_path / "own.onnx", client.names("encoder"))
    convert(ConversionRequest(((shared, smaller),), precision, "onnx", (own,)))
    assert tensors_of(str(own.destination)) == tensors_of(str(exact))
    image = natural_image(300, 200)
    (expected,), (actual,) = (
        Encoder(str(path), client).run(image).values() for path in (exact, own.destination)
    )
    assert 0 < np.abs(actual - expected).max() < 0.1 * np.abs(expected).max()


def test_a_box_with_the_padding_point_of_sam_2_gives_another_mask(
    pytorch: SmallSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = CLIENTS["nimbusimage (sam)"]
    monkeypatch.setattr(sam_graphs, "PaddingBias", lambda box_has_padding: PaddingBias())
    paths = write_graphs(pytorch, client, tmp_path)
    wanted = cases(pytorch, client)
    found = differences(answers(paths, client, wanted)[0], wanted[0].expected)["prompts"]
    assert found["box"]["masks"] > 0.01
    assert found["one point"]["masks"] < 1e-4


def test_has_mask_input_of_minus_one_means_no_mask(pytorch: SmallSam, tmp_path: Path) -> None:
    client = CLIENTS["osam (sam)"]
    paths = write_graphs(pytorch, client, tmp_path)
    decoder = onnxruntime.InferenceSession(paths["decoder"])
    feeds: dict[str, Any] = {
        "image_embeddings": np.ones((1, 64, 16, 16), np.float32),
        "point_coords": np.array([[[100, 80], [0, 0]]], np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 64, 64), np.float32),
        "orig_im_size": np.array([90, 120], np.float32),
    }
    masks = [
        decoder.run(["masks"], {**feeds, "has_mask_input": np.array([flag], np.float32)})[0]
        for flag in (-1, 0, 1)
    ]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.abs(masks[2] - masks[1]).max() > 1e-3


@pytest.mark.parametrize("size", [(90, 120), (120, 90), (1, 300), (256, 256), (700, 701)])
def test_masks_have_the_images_size_at_any_aspect_ratio(
    size: tuple[int, int], pytorch: SmallSam, shared: dict[str, Path]
) -> None:
    client = CLIENTS["nimbusimage (sam)"]
    image = np.random.default_rng(3).integers(0, 255, (*size, 3)).astype(np.uint8)
    (case, *_) = cases(pytorch, client)
    one = case.prompted.prompts[0]
    predictor = pytorch.predictor(client.resize)
    expected = reference.predict(predictor, image, [one], client.masks[0], client)
    graphs = {name: str(path) for name, path in shared.items()}
    (actual,) = run_graphs(graphs, [PromptedImage(image, [one], {})], client)
    assert actual.full_masks[one.name].shape[1:] == size
    np.testing.assert_allclose(
        actual.full_masks[one.name], expected.full_masks[one.name], atol=1e-4
    )


@pytest.fixture(scope="module")
def shared(pytorch: SmallSam, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The graphs for NimbusImage."""
    folder = tmp_path_factory.mktemp("nimbusimage")
    return write_graphs(pytorch, CLIENTS["nimbusimage (sam)"], folder)


def test_no_graph_computes_sizes_other_than_the_images(
    shared: dict[str, Path], tmp_path: Path
) -> None:
    pairs = [[str(path), str(tmp_path / f"{name}.onnx")] for name, path in shared.items()]
    # In a child process, which hides torch from itself.
    child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, tmp_path / "log", verbose=False)
    for name, (_, path) in zip(shared, pairs, strict=True):
        operators = {node.op_type for node in onnx.load(path).graph.node}
        assert not operators & {"Shape", "Mod", "Range", "If", "Loop"}, name
        # The decoder gathers the tokens of the scores.
        assert name == "decoder" or "Gather" not in operators

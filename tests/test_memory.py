"""The memory attention as a graph, compared with sam2's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_1d_sine_pe
from torch import Tensor

from tasks.model import load
from tasks.model.memory import MemoryReader
from tasks.running import child

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
NAMES = ("image_embed", "memories", "memory_times", "pointers", "pointer_times")
FREE = {name: {0: "memories"} for name in NAMES[1:3]} | {n: {0: "pointers"} for n in NAMES[3:]}


@pytest.fixture(scope="module", autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("sam2_hiera_tiny", marks=pytest.mark.slow),
        "sam2.1_hiera_tiny",
        "efficienttam_ti_1",
        "efficienttam_ti_2",
    ],
)
def model(request: pytest.FixtureRequest) -> SAM2Base:
    """A model for images of 256 pixels with noise on every parameter."""
    return noisy(request.param, 256)


def noisy(architecture: str, image_size: int) -> SAM2Base:
    torch.manual_seed(1)
    model = load.build_model(architecture, image_size).eval()
    for tensor in model.state_dict().values():
        tensor.add_(torch.randn(tensor.shape), alpha=0.02)
    return model


@pytest.fixture(scope="module")
def graph(model: SAM2Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(model, tmp_path_factory.mktemp("memory") / "memory.onnx")


def inputs(model: SAM2Base, memories: int, pointers: int) -> Inputs:
    torch.manual_seed(memories)
    side = model.image_size // 16
    return (
        torch.randn(1, model.hidden_dim, side, side),
        torch.randn(memories, model.mem_dim, side, side),
        torch.randint(0, model.num_maskmem, (memories,), dtype=torch.int32),
        torch.randn(pointers, model.hidden_dim),
        torch.rand(pointers),
    )


def expected(
    model: SAM2Base,
    image_embed: Tensor,
    memories: Tensor,
    memory_times: Tensor,
    pointers: Tensor,
    pointer_times: Tensor,
) -> Tensor:
    """sam2's own result: `SAM2Base._prepare_memory_conditioned_features` from its step 2 on."""

    def rows(maps: Tensor) -> Tensor:
        return maps.flatten(2).permute(2, 0, 1)

    parts = model.hidden_dim // model.mem_dim
    places = rows(model.memory_encoder.position_encoding(memories[:1]))
    tokens = pointers.reshape(-1, 1, model.mem_dim)
    encodings = torch.zeros(len(pointers), 1, model.mem_dim)
    if model.add_tpos_enc_to_obj_ptrs:
        sines = get_1d_sine_pe(pointer_times, dim=model.hidden_dim)
        encodings = model.obj_ptr_tpos_proj(sines)[:, None]
    features = image_embed - model.no_mem_embed.reshape(1, -1, 1, 1)
    found: Tensor = model.memory_attention(
        curr=[rows(features)],
        curr_pos=[rows(model.image_encoder.neck.position_encoding(features))],
        memory=torch.cat([*(rows(each[None]) for each in memories), tokens]),
        memory_pos=torch.cat(
            [
                *(places + model.maskmem_tpos_enc[int(time)] for time in memory_times),
                encodings.repeat_interleave(parts, dim=0),
            ]
        ),
        num_obj_ptr_tokens=len(tokens),
    )
    return found.permute(1, 2, 0).reshape(features.shape)


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest magnitude."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def write(model: SAM2Base, path: Path) -> Path:
    """Trace it with two memories and three pointers, and simplify it."""
    torch.onnx.export(
        MemoryReader(model),
        inputs(model, 2, 3),
        path.with_suffix(".traced"),
        dynamo=False,
        opset_version=20,
        input_names=list(NAMES),
        output_names=["conditioned_embed"],
        dynamic_axes=FREE,
    )
    pairs = [[str(path.with_suffix(".traced")), str(path)]]
    child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, path.with_suffix(".log"), False)
    return path


@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (7, 16)])
def test_features_are_conditioned_as_in_sam2(model: SAM2Base, memories: int, pointers: int) -> None:
    given = inputs(model, memories, pointers)
    assert difference(MemoryReader(model)(*given), expected(model, *given)) < 2e-6


@pytest.mark.parametrize(("memories", "pointers"), [(1, 0), (1, 1), (7, 16)])
def test_a_graph_takes_any_number_of_memories_and_pointers(
    model: SAM2Base, graph: Path, memories: int, pointers: int
) -> None:
    session = onnxruntime.InferenceSession(graph)
    given = inputs(model, memories, pointers)
    feeds = dict(zip(NAMES, (each.numpy() for each in given), strict=True))
    taken = {name: feeds[name] for name in (each.name for each in session.get_inputs())}
    found = torch.from_numpy(np.asarray(session.run(None, taken)[0]))
    assert difference(found, expected(model, *given)) < 2e-6


@pytest.mark.slow
def test_the_file_holds_its_weights_and_little_else(tmp_path: Path) -> None:
    model = noisy("sam2.1_hiera_tiny", 1024)
    size = write(model, tmp_path / "memory.onnx").stat().st_size
    weights = sum(each.numel() for each in model.memory_attention.parameters())
    assert size <= 1.05 * 4 * weights


def test_no_operator_computes_a_shape(graph: Path) -> None:
    used = {node.op_type for node in onnx.load(graph).graph.node}
    assert not used & {"Shape", "Range", "ConstantOfShape", "If", "Loop", "Tile", "Size"}

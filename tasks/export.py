"""Exports a model's graphs to ONNX, loading the checkpoint once.

The model's family defines the modules to trace. Each table of models gets one encoder, if one of
its clients loads an encoder, and one decoder for each set of options that its clients need.
Targets: ``<build>/models/<model>/exported/encoder.onnx``, ``decoder.onnx``, and
``decoder-<client>.onnx`` if a further client needs a different decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak, describe_sizes
from tasks.config.models import Decoder, Source
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.model import AttentionKind
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    from tasks.clients.contract import GraphTensors
    from tasks.model.families.family import Traceable

PACKAGES = (*MODEL_PACKAGES, "samexporter", "onnx")

# The traced example: three prompts of two points and a box each. A free axis can have any size
# except 1, which tracing may record as fixed.
EXAMPLE = {"num_points": 2, "num_prompts": 3, "points_batch": 3, "num_boxes": 3, "mask_batch": 1}


@dataclass(frozen=True)
class ExportRequest:
    """The model to load, and the graphs to trace from it.

    ``graphs`` has the file of each graph by name, ``decoders`` the options of each decoder.
    ``video``: also trace the graphs of `contract.tracking_contract`.
    """

    architecture: str
    checkpoint: Path
    opset: int
    attention: AttentionKind
    decoders: Mapping[str, Decoder]
    graphs: Mapping[str, Path]
    image_size: int | None = None
    video: bool = False


def declare(source: Source) -> Stage:
    """The stage that exports a source's graphs."""
    return Stage(
        source.name,
        export,
        [source],
        reads=[source.checkpoint, *source.architecture_files],
        writes=list(source.exported_graphs.values()),
        shared="files",
        inputs={
            **source.encoder_options,
            "decoders": {name: asdict(each) for each, name in source.decoders.items()},
            **({"tracking": source.tracking_graphs} if source.video else {}),
            **versions(*PACKAGES),
        },
        also_runs=source.family_code("tracing"),
    )


def export(source: Source, work: Workspace) -> dict[str, Any]:
    """Export in a child process, then move the graphs into place."""
    try:
        result = work.run(
            "tasks.export:write_graphs",
            ExportRequest(
                architecture=source.architecture,
                checkpoint=source.checkpoint,
                opset=source.opset,
                attention=source.attention,
                decoders={name: each for each, name in source.decoders.items()},
                graphs=work.made(source.exported_graphs),
                image_size=source.image_size,
                video=source.video,
            ),
        )
    except StageError as error:
        if str(source.checkpoint) not in str(error):
            raise
        shown = source.location.shown
        raise StageError(f"{error}\n{source.checkpoint} came from {shown}.") from error
    work.deliver(*source.exported_graphs.values())
    if "note" in result:
        result["note"] = f"{work.task.name}: {result['note']}"
    sizes = describe_sizes(source.exported_graphs)
    return {"summary": f"{sizes}, opset {source.opset}{describe_peak(result)}", **result}


def write_graphs(request: ExportRequest) -> dict[str, Any]:
    """Trace the modules of a model and write their graphs (runs in a child process).

    Encoder and decoders have the tensors of `tasks.clients.contract.traced_contract`.

    :returns: ``note``, if the checkpoint has the weights of more than one model.
    """
    from tasks.model import load, weights
    from tasks.model.families.registry import family_of

    model = load.load_model(
        request.architecture, request.checkpoint, request.image_size, request.video
    )
    family, opset = family_of(request.architecture).load_graphs(), request.opset
    if request.video:
        for name, tracker in family.trackers(model).items():
            write_traced(request.graphs[name], tracker, opset)
            declare_fixed_sizes(request.graphs[name], tracker.tensors)
    for name, options in request.decoders.items():
        decoder = family.decoder(model, **asdict(options))
        write_traced(request.graphs[name], decoder, opset)
        declare_fixed_sizes(request.graphs[name], decoder.tensors)
    if "encoder" in request.graphs:
        write_traced(request.graphs["encoder"], family.encoder(model, request.attention), opset)
    note = weights.choose(request.checkpoint).note
    return {"note": note} if note else {}


def write_traced(path: Path, traceable: Traceable, opset: int) -> None:
    """Trace a module with its patches in place."""
    import torch

    module, patched, tensors, options = traceable
    inputs, outputs = tensors.names()
    example = [
        torch.ones(each.sizes(**EXAMPLE), dtype=getattr(torch, each.dtype))
        for each in tensors.inputs
    ]
    # Without no_grad, as in samexporter's command, the model large takes 24 GiB.
    with torch.no_grad(), patched:
        torch.onnx.export(
            module,
            tuple(example),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=tensors.free_axes(),
            **options,
        )


def declare_fixed_sizes(path: Path, tensors: GraphTensors) -> None:
    """Write the fixed sizes of a graph's outputs where tracing left them open.

    For masks at an image's size, tracing leaves every size open, although their number is fixed.
    """
    import onnx

    model = onnx.load(path)
    shapes = {tensor.name: tensor.shape for tensor in tensors.outputs}
    for output in model.graph.output:
        for dim, size in zip(output.type.tensor_type.shape.dim, shapes[output.name], strict=True):
            if not dim.HasField("dim_value") and isinstance(size, int):
                dim.dim_value = size
    onnx.save(model, path)

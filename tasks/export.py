"""A model's graphs in ONNX, from one load of the checkpoint.

The modules are samexporter's, the model is sam2's. One encoder, and a decoder for each set of
options that the clients of a table ask for. Targets:
``<build>/models/<model>/exported/encoder.onnx``, ``decoder.onnx``, and ``decoder-<client>.onnx``
where a further client needs another.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tasks.building.stage import Stage, Workspace, describe_peak, describe_sizes
from tasks.config.models import AttentionKind, Source
from tasks.model import PACKAGES as MODEL_PACKAGES
from tasks.system.errors import StageError
from tasks.system.versions import versions

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sam2.modeling.sam2_base import SAM2Base
    from torch import nn

    from tasks.clients.contract import GraphTensors

PACKAGES = (*MODEL_PACKAGES, "samexporter", "onnx")

# What is traced: three prompts of two points and a box each. Of free axes any number will do but
# 1, which tracing may take for granted.
EXAMPLE = {"num_points": 2, "num_prompts": 3, "points_batch": 3, "num_boxes": 3, "mask_batch": 1}


def declare(source: Source) -> Stage:
    """The export of a source's graphs."""
    return Stage(
        source.name,
        export,
        [source],
        reads=[source.checkpoint, *source.architecture_files],
        writes=list(source.exported_graphs.values()),
        shared="files",
        inputs={
            **source.encoder_options,
            "decoders": decoders(source),
            **({"tracking": source.tracking_graphs} if source.video else {}),
            **versions(*PACKAGES),
        },
    )


def decoders(source: Source) -> dict[str, dict[str, str]]:
    """The options of each decoder, by the name of its graph."""
    return {name: asdict(each) for each, name in source.decoders.items()}


def export(source: Source, work: Workspace) -> dict[str, Any]:
    """Export in a child process, then move the graphs into place."""
    checkpoint = str(source.checkpoint)
    try:
        result = work.run(
            "tasks.export:write_graphs",
            **source.encoder_options,
            decoders=decoders(source),
            video=source.video,
            checkpoint=checkpoint,
            graphs=work.made(source.exported_graphs),
        )
    except StageError as error:
        if checkpoint not in str(error):
            raise
        raise StageError(f"{error}\n{checkpoint} came from {source.location.shown}.") from error
    work.deliver(*source.exported_graphs.values())
    if "note" in result:
        result["note"] = f"{work.task.name}: {result['note']}"
    sizes = describe_sizes(source.exported_graphs)
    return {"summary": f"{sizes}, opset {source.opset}{describe_peak(result)}", **result}


def write_graphs(
    architecture: str,
    checkpoint: str,
    opset: int,
    attention: AttentionKind,
    decoders: dict[str, dict[str, Any]],
    graphs: dict[str, str],
    image_size: int | None = None,
    video: bool = False,
) -> dict[str, Any]:
    """Trace the modules of a model and write their graphs (runs in a child process).

    The encoder maps ``image (1, 3, S, S)`` to the three feature maps of the contract; what a
    decoder takes and returns is `tasks.clients.contract.traced`.

    :param decoders: ``interface``, ``masks`` and ``prompts`` of each, by its graph's name.
    :param graphs: where each graph is written, by its name.
    :param video: trace `contract.tracking`'s graphs too.
    :returns: ``note``, where the checkpoint has the weights of more than one model.
    """
    from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder

    from tasks.clients.contract import dimensions_of, traced
    from tasks.model import load, weights
    from tasks.model.decoder_patches import patched_decoder
    from tasks.model.encoder_patches import patched_encoder

    model = load.load_model(architecture, checkpoint, image_size, video)
    dimensions = dimensions_of(model)

    if video:
        write_tracking_graphs(graphs, model, opset)
    for name, options in decoders.items():
        tensors = traced(dimensions, **options)["decoder"]
        decoder = SAM2ImageDecoder(model, multimask_output=options["masks"] != "single").eval()
        # What it refers to is traced with it, and the whole model is not used.
        del decoder.model
        patched = patched_decoder(decoder, options["masks"], options["interface"])
        write_traced(graphs[name], decoder, patched, tensors, opset)
        declare_known_sizes(graphs[name], tensors)
    encoder = SAM2ImageEncoder(model).eval()
    write_traced(
        graphs["encoder"],
        encoder,
        patched_encoder(encoder, attention),
        traced(dimensions, "points", "multi", "one")["encoder"],
        opset,
        do_constant_folding=False,  # it would repeat the window of the embedding
        custom_opsets={"com.microsoft": 1} if attention == "fused" else None,
    )
    note = weights.choose(checkpoint).note
    return {"note": note} if note else {}


def write_tracking_graphs(graphs: dict[str, str], model: SAM2Base, opset: int) -> None:
    """Trace what follows objects through frames."""
    from contextlib import nullcontext

    from tasks.clients.contract import dimensions_of, memory_of, tracking
    from tasks.model.memory import MemoryReader
    from tasks.model.memory_encoder import MemoryWriter
    from tasks.model.tracking_decoder import (
        MaskPrompt,
        TrackingDecoder,
        patched_tracking_decoder,
    )

    decoder = TrackingDecoder(model)
    modules: dict[str, tuple[nn.Module, AbstractContextManager[None]]] = {
        "tracking_decoder": (decoder, patched_tracking_decoder(decoder)),
        "memory_attention": (MemoryReader(model), nullcontext()),
        "memory_encoder": (MemoryWriter(model), nullcontext()),
        "mask_prompt": (MaskPrompt(model), nullcontext()),
    }
    contract = tracking(dimensions_of(model), memory_of(model))
    for name, (module, patched) in modules.items():
        write_traced(graphs[name], module, patched, contract[name], opset)
        declare_known_sizes(graphs[name], contract[name])


def write_traced(
    path: str,
    module: nn.Module,
    patched: AbstractContextManager[None],
    tensors: GraphTensors,
    opset: int,
    **options: Any,
) -> None:
    """Trace a module while it is patched.

    :param options: further ones of ``torch.onnx.export``.
    """
    import torch

    inputs, outputs = tensors.names()
    # samexporter's command keeps gradients: 24 GiB for large.
    with torch.no_grad(), patched:
        torch.onnx.export(
            module,
            tuple(
                torch.ones(each.sizes(**EXAMPLE), dtype=getattr(torch, each.dtype))
                for each in tensors.inputs
            ),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=tensors.free_axes(),
            **options,
        )


def declare_known_sizes(path: str, tensors: GraphTensors) -> None:
    """Give the sizes that tracing could not tell to the outputs of a graph.

    Of masks at an image's size it knows none, though their number is fixed.
    """
    import onnx

    model = onnx.load(path)
    told = {each.name: each.shape for each in tensors.outputs}
    for output in model.graph.output:
        for dim, size in zip(output.type.tensor_type.shape.dim, told[output.name], strict=True):
            if not dim.HasField("dim_value") and isinstance(size, int):
                dim.dim_value = size
    onnx.save(model, path)

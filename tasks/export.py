"""Stage 2: a model's graphs in ONNX, from one load of the checkpoint.

The modules are samexporter's, the model is sam2's. Targets:
``<build>/models/<model>/exported/encoder.onnx`` and ``decoder.onnx``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.config.schema import AttentionKind, Configuration, MaskChoice, Model
from tasks.engine import artifacts
from tasks.engine.stage import declare, describe_peak, describe_sizes, workspace
from tasks.engine.staleness import versions

if TYPE_CHECKING:
    from doit.task import Task

PACKAGES = ("torch", "torchvision", "sam2", "samexporter", "onnx")


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return declare(
        model.name,
        export,
        [config, model],
        reads=[artifacts.checkpoint(config, model), *model.architecture_files],
        writes=list(artifacts.exported_graphs(config, model).values()),
        inputs={**model.graph_options, **versions(*PACKAGES)},
    )


def export(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Export in a child process, then move the graphs into place."""
    targets = artifacts.exported_graphs(config, model)
    with workspace(config.build, task) as work:
        result = work.run(
            "tasks.export:write_graphs",
            **model.graph_options,
            checkpoint=str(artifacts.checkpoint(config, model)),
            graphs=work.made(targets),
        )
        work.deliver(*targets.values())
    summary = f"{describe_sizes(targets)}, opset {model.opset}{describe_peak(result)}"
    return {"summary": summary, **result}


def write_graphs(
    architecture: str,
    checkpoint: str,
    opset: int,
    masks: MaskChoice,
    attention: AttentionKind,
    graphs: dict[str, str],
) -> dict[str, Any]:
    """Trace the modules of a model and write their graphs (runs in a child process).

    The encoder maps ``image (1, 3, S, S)`` to the three feature maps of the contract, the
    decoder takes N points in ``point_coords (1, N, 2)``; N is the only free dimension.

    :param graphs: where each graph is written, by its name.
    """
    import torch
    from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder

    from tasks.inference.contract import contract_of
    from tasks.model import load
    from tasks.model.decoder_patches import patched_decoder
    from tasks.model.encoder_patches import patched_encoder

    model = load.load_model(architecture, checkpoint)
    contract = contract_of(model, masks)
    encoder = SAM2ImageEncoder(model).eval()
    decoder = SAM2ImageDecoder(model, multimask_output=masks != "single").eval()
    modules = {
        "encoder": (encoder, patched_encoder(encoder, attention)),
        "decoder": (decoder, patched_decoder(decoder, masks)),
    }
    for name, path in graphs.items():
        module, patched = modules[name]
        tensors = contract[name]
        inputs, outputs = tensors.names()
        with torch.no_grad(), patched:  # samexporter's command keeps gradients: 24 GiB for large
            torch.onnx.export(
                module,
                # Two points, or any other number: that axis is free.
                tuple(torch.zeros(each.sizes(points=2)) for each in tensors.inputs),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes=tensors.free_axes(),
                # In the encoder it would repeat the window of the embedding.
                do_constant_folding=name != "encoder",
                custom_opsets=(
                    {"com.microsoft": 1} if name == "encoder" and attention == "fused" else None
                ),
            )
    return {}

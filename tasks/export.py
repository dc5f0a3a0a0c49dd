"""Stage 2: encoder and decoder as ONNX graphs, from one load of the checkpoint.

The modules are samexporter's, the model is sam2's. Targets:
``<build>/models/<model>/exported/encoder.onnx`` and ``decoder.onnx``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks import checkpoint, child
from tasks.configuration import AttentionKind, Configuration, MaskChoice, Model
from tasks.contract import (
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    POINTS,
)
from tasks.files import mebibytes, scratch_folder
from tasks.staleness import Trace, versions

if TYPE_CHECKING:
    from doit.task import Task

PACKAGES = ("torch", "torchvision", "sam2", "samexporter", "onnx")
SOURCES = tuple(
    f"tasks/{name}.py" for name in ("export", "patches", "sam2_model", "architecture", "contract")
)


class Graphs(NamedTuple):
    """The two files of a model at one stage of the build."""

    encoder: Path
    decoder: Path

    @classmethod
    def within(cls, folder: Path) -> Graphs:
        """The files as every stage names them."""
        return cls(folder / "encoder.onnx", folder / "decoder.onnx")


def graphs(config: Configuration, model: Model) -> Graphs:
    """The exported files of a model."""
    return Graphs.within(config.build / "models" / model.name / "exported")


def task(config: Configuration, model: Model) -> dict[str, Any]:
    """doit's task for one model."""
    return {
        "name": model.name,
        "actions": [(export, [config, model])],
        "file_dep": [
            str(checkpoint.path(config, model)),
            *model.architecture_files,
            *SOURCES,
        ],
        "targets": [str(path) for path in graphs(config, model)],
        "uptodate": [Trace({**options(model), **versions(*PACKAGES)})],
        "clean": True,
        "io": {"capture": False},
    }


def options(model: Model) -> dict[str, Any]:
    """What of the configuration shapes the graphs."""
    return {
        "architecture": model.architecture,
        "opset": model.opset,
        "masks": model.masks,
        "attention": model.attention,
    }


@child.action
def export(config: Configuration, model: Model, task: Task) -> dict[str, Any]:
    """Export in a child process, then move both graphs into place."""
    targets = graphs(config, model)
    targets.encoder.parent.mkdir(parents=True, exist_ok=True)
    log = config.build / "logs" / f"export-{model.name}.log"
    with scratch_folder(config.build / "tmp" / f"export-{model.name}") as scratch:
        made = Graphs.within(scratch)
        arguments = {
            **options(model),
            "checkpoint": str(checkpoint.path(config, model)),
            "encoder": str(made.encoder),
            "decoder": str(made.decoder),
        }
        result = child.run("tasks.export:write_graphs", arguments, log, task.verbosity == 2)
        for source, target in zip(made, targets, strict=True):
            source.replace(target)
    return {"summary": f"{describe(targets)}, opset {model.opset}{peak(result)}", **result}


def describe(paths: Graphs) -> str:
    """The sizes of both files, for people."""
    return ", ".join(f"{path.stem} {mebibytes(path.stat().st_size)}" for path in paths)


def peak(result: dict[str, Any]) -> str:
    """A child's peak memory, for people; empty where the system does not tell."""
    memory = result.get("peak_memory")
    return f", peak {memory / 2**30:.1f} GiB" if memory else ""


def write_graphs(
    architecture: str,
    checkpoint: str,
    opset: int,
    masks: MaskChoice,
    attention: AttentionKind,
    encoder: str,
    decoder: str,
) -> dict[str, Any]:
    """Trace both modules and write their graphs (runs in a child process).

    The encoder maps ``image (1, 3, S, S)`` to the three feature maps of the contract, the
    decoder takes N points in ``point_coords (1, N, 2)``; N is the only free dimension.
    """
    import torch
    from samexporter.export_sam2 import SAM2ImageDecoder, SAM2ImageEncoder

    from tasks import sam2_model
    from tasks.patches import patched_decoder, patched_encoder

    model = sam2_model.load(architecture, checkpoint)
    shapes = sam2_model.contract_of(model, masks)
    encoder_module = SAM2ImageEncoder(model).eval()
    decoder_module = SAM2ImageDecoder(model, multimask_output=masks != "single").eval()
    with torch.no_grad():  # samexporter's command keeps gradients: 24 GiB for large
        with patched_encoder(encoder_module, attention):
            torch.onnx.export(
                encoder_module,
                (torch.zeros(shapes.encoder_inputs[0].sizes()),),
                encoder,
                dynamo=False,
                opset_version=opset,
                input_names=list(ENCODER_INPUTS),
                output_names=list(ENCODER_OUTPUTS),
                do_constant_folding=False,  # it would repeat the window of the embedding
                custom_opsets={"com.microsoft": 1} if attention == "fused" else None,
            )
        # Two points, or any other number: that axis is free.
        examples = tuple(torch.zeros(each.sizes(points=2)) for each in shapes.decoder_inputs)
        with patched_decoder(decoder_module, masks):
            torch.onnx.export(
                decoder_module,
                examples,
                decoder,
                dynamo=False,
                opset_version=opset,
                input_names=list(DECODER_INPUTS),
                output_names=list(DECODER_OUTPUTS),
                dynamic_axes={"point_coords": {1: POINTS}, "point_labels": {1: POINTS}},
            )
    return {}

"""Wrong graphs do not pass: the proof of their stage catches every mutation in `mutations`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import onnx
import pytest
from mutations import MUTATIONS, OF_MANY, Change, Mutation, both, output_through
from project import ROOT

from tasks import export, fidelity, variant, verify
from tasks.clients.client import Client
from tasks.clients.contract import MaskChoice, PromptChoice
from tasks.clients.registry import CLIENTS
from tasks.config.checks import FidelityCheck, Tolerances
from tasks.config.models import Decoder, Variant
from tasks.inference.cases import Case, cases_for
from tasks.inference.naming import rename_tensors
from tasks.inference.reference import Reference
from tasks.model import load
from tasks.model.trained import TrainedModel
from tasks.proof.failures import Failure, sentences
from tasks.proof.judgement import exceeded, fidelity_failures, violations
from tasks.reference import ReferenceRequest, write_reference
from tasks.running import child
from tasks.system.errors import StageError

pytestmark = pytest.mark.slow

# A decoder of each kind: prompts in one run or one by one, masks unranked or ranked.
DECODERS: Mapping[str, tuple[MaskChoice, PromptChoice]] = {
    "samexporter": ("multi", "many"),
    "nimbusimage": ("ranked", "one"),
}


class Built:
    """A narrow model at 256 pixels: in PyTorch, and its graphs as each client gets them."""

    def __init__(self, folder: Path) -> None:
        self.yaml = folder / "small.yaml"
        self.yaml.write_text((ROOT / "tests/narrow.yaml").read_text().replace("512", "256"))
        self.checkpoint = folder / "weights.pt"
        load.make_synthetic(str(self.yaml), 1, str(self.checkpoint))
        self.pytorch = Reference(TrainedModel(str(self.yaml), str(self.checkpoint)))
        weights = self.pytorch.model.state_dict().items()
        self.weights = {name: each.numpy() for name, each in weights}
        names = ("encoder", *DECODERS)
        traced = {name: folder / f"{name}.traced" for name in names}
        simple = {name: str(folder / f"{name}.onnx") for name in names}
        decoders = {
            name: Decoder(CLIENTS[name].interface, masks, prompts)
            for name, (masks, prompts) in DECODERS.items()
        }
        export.write_graphs(
            export.ExportRequest(str(self.yaml), self.checkpoint, 20, "plain", decoders, traced)
        )
        pairs = [[str(traced[name]), simple[name]] for name in names]
        child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, folder / "log", False)
        self.graphs = {name: onnx.load(path) for name, path in simple.items()}
        self._cases: dict[str, list[Case]] = {}

    def write(self, client: str, folder: Path, mutation: Mutation | None = None) -> dict[str, str]:
        """The files of a client in a folder, one of them mutated."""
        files = {}
        for graph, source in (("encoder", "encoder"), ("decoder", client)):
            model = onnx.ModelProto.FromString(self.graphs[source].SerializeToString())
            rename_tensors(model.graph, CLIENTS[client].names(graph))
            if mutation is not None and mutation.graph == graph:
                mutation.change(model, self.weights)
            files[graph] = str(folder / f"{graph}.onnx")
            onnx.save(model, files[graph])
        return files

    def failures(
        self, client: str, files: dict[str, str], square_only: bool = False
    ) -> list[Failure]:
        """The failures that verify finds in files, by the default rules.

        :param square_only: leave out the images that are not square.
        """
        try:
            return self._failures(client, files, square_only)
        except StageError as error:  # it ends a build
            return [Failure("refused", str(error))]

    def _failures(self, client: str, files: dict[str, str], square_only: bool) -> list[Failure]:
        masks, prompts = DECODERS[client]
        loads: Client = CLIENTS[client]
        contract = loads.contract(self.pytorch.dimensions, masks, prompts)
        if broken := violations(contract, verify.read_tensors(files)):
            return broken
        if client not in self._cases:
            many = prompts == "many"
            self._cases[client] = cases_for(self.pytorch, loads, masks, many, None)
        cases = self._cases[client][: 1 if square_only else None]
        answers = verify.run_on(files, cases, loads)
        differences = verify.merge_differences(verify.differences_of(answers, cases))
        return exceeded(differences, Tolerances(), "[verify]")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("mutations"))


@pytest.mark.parametrize("client", list(DECODERS))
def test_unmodified_graphs_pass(built: Built, client: str, tmp_path: Path) -> None:
    assert built.failures(client, built.write(client, tmp_path)) == []


def with_clients() -> list[Any]:
    """Each mutation with each kind of decoder that it applies to."""
    pairs = [
        *(("samexporter", each) for each in (*MUTATIONS, *OF_MANY)),
        *(("nimbusimage", each) for each in MUTATIONS if each.graph == "decoder"),
    ]
    return [
        pytest.param(client, each, id=f"{client}'s {each.graph}: {each.name}")
        for client, each in pairs
    ]


@pytest.mark.parametrize(("client", "mutation"), with_clients())
def test_verify_catches_a_mutation(
    built: Built, client: str, mutation: Mutation, tmp_path: Path
) -> None:
    files = built.write(client, tmp_path, mutation)
    assert built.failures(client, files, square_only=True)


# --- a variant against PyTorch ------------------------------------------------------------------

DRAW, IMAGES = "tasks.drawing.scenes:scene", 2
LOOSE = FidelityCheck(images=IMAGES, q8=0.9, worst=0.3)
Q8, HALF = Variant("q8", "onnx"), Variant("half", "onnx")


@pytest.fixture(scope="module")
def reference(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyTorch's answers for drawn images, with unranked and with ranked masks."""
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    trained = TrainedModel(str(built.yaml), str(built.checkpoint))
    write_reference(ReferenceRequest(trained, ("multi", "ranked"), DRAW, IMAGES, str(path)))
    return path


def fidelity_of(
    files: dict[str, str],
    client: str,
    masks: MaskChoice,
    reference: Path,
) -> set[str]:
    """The kinds of failures that fidelity finds in files."""
    return {each.kind for each in failures_of(files, client, masks, reference, Q8)}


def failures_of(
    files: dict[str, str], client: str, masks: MaskChoice, reference: Path, of: Variant
) -> list[Failure]:
    """The failures that fidelity finds in the files of a variant."""
    picture = str(Path(files["encoder"]).parent / "picture.png")
    figures = fidelity.compare(
        fidelity.FidelityRequest(
            *(files, client, masks, DECODERS[client][1], str(reference), DRAW, picture),
            try_extremes=of.computes_in_half,
        )
    )
    return fidelity_failures(figures, of, LOOSE)


def in_half(files: dict[str, str]) -> dict[str, str]:
    made = {graph: path.replace(".onnx", "_half.onnx") for graph, path in files.items()}
    pairs = tuple((Path(files[graph]), Path(path)) for graph, path in made.items())
    variant.convert(variant.ConversionRequest(pairs, "half", "onnx"))
    return made


@pytest.mark.parametrize("client", list(DECODERS))
def test_half_precision_files_are_close_to_pytorch_and_finite_for_extreme_images(
    built: Built, client: str, reference: Path, tmp_path: Path
) -> None:
    files = in_half(built.write(client, tmp_path))
    assert failures_of(files, client, DECODERS[client][0], reference, HALF) == []


def test_an_encoder_that_overflows_only_in_half_precision_is_refused_with_output_and_image(
    built: Built, reference: Path, tmp_path: Path
) -> None:
    # Scale the image up, beyond half precision, and down again.
    change = both(
        mutations.input_through("Mul", "image", 1e-5), mutations.input_through("Mul", "image", 1e5)
    )
    files = built.write("samexporter", tmp_path, Mutation("large", "encoder", change))
    assert failures_of(files, "samexporter", "multi", reference, Q8) == []
    failures = failures_of(in_half(files), "samexporter", "multi", reference, HALF)
    assert "encoder image_embed is not finite for the image 'white'" in sentences(failures)


@pytest.mark.parametrize("client", list(DECODERS))
def test_unmodified_files_pass_fidelity(
    built: Built, client: str, reference: Path, tmp_path: Path
) -> None:
    files = built.write(client, tmp_path)
    assert fidelity_of(files, client, DECODERS[client][0], reference) == set()


NO_SCORES = output_through("Mul", "iou_predictions", np.nan)
EXCHANGED = both(
    output_through("Gather", "masks", [1, 0, 2], axis=1),
    output_through("Gather", "iou_predictions", [1, 0, 2], axis=1),
)
NO_LOGITS = mutations.not_a_number_where_negative("masks")
LOSSES: Sequence[tuple[str, str, Change, str]] = (
    ("samexporter", "scores are NaN", NO_SCORES, "mask scores"),
    ("nimbusimage", "scores are NaN", NO_SCORES, "mask scores"),
    ("nimbusimage", "scores all 0", output_through("Mul", "iou_predictions", 0.0), "mask scores"),
    ("samexporter", "masks are NaN where negative", NO_LOGITS, "mask logits"),
    ("nimbusimage", "second best mask first", EXCHANGED, "ranking flips"),
    ("samexporter", "scores negated", output_through("Neg", "iou_predictions"), "ranking flips"),
    ("samexporter", "masks negated", output_through("Neg", "masks"), "mean iou"),
    ("samexporter", "third mask larger", mutations.third_mask_scaled, "mask logits"),
    ("nimbusimage", "masks larger", output_through("Mul", "masks", 1.7), "mask logits"),
    *(
        (client, name, dict(mutations.ON_DECODERS)[name], "mask logits")
        for client in DECODERS
        for name in (
            "points after the fourth are dropped",
            "a padding point counts as background",
            "coordinates are clamped to the image",
            "a mask never counts",
        )
    ),
    ("samexporter", "first mask for all", mutations.ON_DECODERS_OF_MANY[0][1], "mask logits"),
)


@pytest.mark.parametrize(
    ("client", "change", "kind"),
    [
        pytest.param(client, change, kind, id=f"{client}'s {name}")
        for client, name, change, kind in LOSSES
    ],
)
def test_fidelity_catches_a_mutation(
    built: Built, client: str, change: Change, kind: str, reference: Path, tmp_path: Path
) -> None:
    files = built.write(client, tmp_path, Mutation(kind, "decoder", change))
    assert kind in fidelity_of(files, client, DECODERS[client][0], reference)


@pytest.mark.parametrize(("first", "kinds"), [(0, set()), (1, {"ranking flips"})])
def test_fidelity_checks_that_a_single_mask_is_the_best_one(
    built: Built, first: int, kinds: set[str], reference: Path, tmp_path: Path
) -> None:
    one = both(
        *(
            output_through("Slice", name, [first], [first + 1], [1])
            for name in ("masks", "iou_predictions")
        ),
        mutations.of_masks(1),
    )
    files = built.write("nimbusimage", tmp_path, Mutation("one mask", "decoder", one))
    assert fidelity_of(files, "nimbusimage", "best", reference) & {"ranking flips"} == kinds


TWO_MASKS = both(
    *(output_through("Slice", name, [0], [2], [1]) for name in ("masks", "iou_predictions")),
    mutations.of_masks(2),
)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(mutations.reordered("input", lambda each: each[::-1]), id="inputs reversed"),
        pytest.param(mutations.reordered("output", lambda each: each[::-1]), id="outputs reversed"),
        pytest.param(mutations.declared("point_coords", 0, 1), id="only one prompt"),
        pytest.param(TWO_MASKS, id="two masks of three"),
    ],
)
def test_fidelity_refuses_files_that_break_the_contract(
    built: Built, change: Change, reference: Path, tmp_path: Path
) -> None:
    files = built.write("samexporter", tmp_path, Mutation("tensors", "decoder", change))
    with pytest.raises(StageError, match=r"samexporter cannot read .*decoder\.onnx"):
        fidelity_of(files, "samexporter", "multi", reference)

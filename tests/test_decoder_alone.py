"""A decoder on its own, for an application that encodes images elsewhere, as bioimage.io does."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import segment_anything
import torch
from jsonschema import Draft202012Validator
from manifest_schema import FILE as SCHEMA
from PIL import Image
from project import ROOT, Project, install_packages, programs
from test_sam import SmallSam, write_graphs

from tasks import export, simplify, variant, verify
from tasks.clients.registry import CLIENTS
from tasks.commands import serve
from tasks.config.checks import Checks, FidelityCheck, Tolerances
from tasks.config.models import Source, Variant
from tasks.config.parse import load, parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.inference import embedding
from tasks.inference.cases import Case, cases_for
from tasks.inference.metrics import mask_iou
from tasks.inference.prompts import natural_image
from tasks.model import load as loading
from tasks.model.trained import TrainedModel
from tasks.proof import runtimes
from tasks.proof.failures import Failure
from tasks.proof.judgement import STORED_AS, verify_failures
from tasks.proof.manifest import read_manifest
from tasks.web import chromium, packages, server

CLIENT = CLIENTS["bioimage.io (sam)"]
MODEL = {"model_type": "vit_b", "url": "synthetic:", "client": "bioimage.io"}


def configured(**changes: Any) -> Configuration:
    table = {key: value for key, value in {**MODEL, **changes}.items() if value is not None}
    return parse({"models": {"lm": table}}, Path("models.toml"))


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        configured(**changes)
    return str(error.value)


# --- the configuration ---------------------------------------------------------------------------


@pytest.mark.parametrize("graphs", [None, ["decoder"]])
def test_bioimage_io_gets_only_the_decoder(graphs: list[str] | None) -> None:
    (target,) = configured(graphs=graphs, variants=["fp32", "fp16", "q8"]).targets
    assert target.graphs == target.all_graphs == ("decoder",)
    assert (target.masks, target.prompts, target.webgpu) == ("best", "one", False)
    names = [target.file_names(each) for each in target.variants]
    assert names == [
        {"decoder": name}
        for name in ("decoder.onnx", "decoder_fp16.onnx", "decoder_quantized.onnx")
    ]


def test_a_decoder_alone_is_refused_for_a_client_that_loads_both() -> None:
    text = refusal(client="samexporter", graphs=["decoder"])
    assert "no graphs for client samexporter, which loads encoder and decoder" in text
    assert "bioimage.io for only a decoder" in text


def test_an_encoder_is_refused_for_a_client_that_loads_only_the_decoder() -> None:
    text = refusal(graphs=["encoder", "decoder"])
    assert "no graphs for client bioimage.io, which loads decoder; or another client" in text


@pytest.mark.parametrize("precision", ["q4", "q4f16"])
def test_a_precision_unsupported_by_onnxruntime_web_1_19_is_refused_with_the_reason(
    precision: str,
) -> None:
    text = refusal(variants=["fp32", precision])
    assert f"no {precision} for client bioimage.io: it contains MatMulNBits of 8 bits" in text


def test_every_allowed_variant_runs_on_onnxruntime_1_19() -> None:
    for opset in runtimes.OPSETS:
        for precision in runtimes.PRECISIONS.keys() - CLIENT.refused.keys():
            needed = runtimes.needs(opset, precision, "decoder.onnx")["onnxruntime"]
            assert runtimes.newest([needed, "1.19"]) == "1.19"


def test_webgpu_is_refused_for_a_client_that_runs_only_on_wasm() -> None:
    assert "no webgpu for client bioimage.io, which runs only on WASM" in refusal(webgpu=True)


def test_sam_2_is_refused_for_a_client_of_sam_1() -> None:
    assert "for SAM 2" in refusal(model_type="sam2_hiera_tiny")


# --- the stages ----------------------------------------------------------------------------------


def made(source: Source) -> set[str]:
    """The graph files that the stages of a model write."""
    stages = [export.declare(source), simplify.declare(source)]
    stages += [variant.declare(source, each) for each in source.derived_variants]
    return {Path(path).name for each in stages for path in each.writes}


def test_no_stage_builds_an_encoder_that_no_client_loads() -> None:
    (source,) = configured(variants=["fp32", "q8"]).sources
    assert made(source) == {"decoder.onnx", "decoder_quantized.onnx"}


def test_another_client_of_the_same_model_gets_its_encoder() -> None:
    clients = ["bioimage.io", "nimbusimage"]
    (source,) = configured(client=None, clients=clients, variants=["fp32", "q8"]).sources
    assert {"encoder.onnx", "encoder_quantized.onnx"} <= made(source)
    alone, both = source.targets
    assert set(alone.image_graphs()) == {"decoder"}
    assert set(both.image_graphs(Variant("q8"))) == {"encoder", "decoder"}


# --- the proof -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pytorch() -> SmallSam:
    return SmallSam()


@pytest.fixture(scope="module")
def decoder(pytorch: SmallSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_graphs(pytorch, CLIENT, tmp_path_factory.mktemp("decoder"))["decoder"]


@pytest.fixture(scope="module")
def cases(pytorch: SmallSam) -> list[Case]:
    return cases_for(pytorch, CLIENT, "best", False, None)


def failures(decoder: Path, cases: list[Case]) -> list[Failure]:
    request = verify.VerifyRequest(
        TrainedModel("vit_b", "none.pt"),
        *(20, "plain", CLIENT.key, "best", "one"),
        ({"decoder": str(decoder)},),
    )
    report = {"violations": [], **verify.compare_answers(request, CLIENT, cases)}
    json.dumps(report, allow_nan=False)
    return verify_failures(report, Tolerances(), 0.5, FidelityCheck())


def test_the_decoder_matches_pytorch_on_pytorchs_embeddings(
    decoder: Path, cases: list[Case]
) -> None:
    assert failures(decoder, cases) == []
    for case in cases:
        assert all(each.box and not each.points for each in case.prompted.prompts)
    assert sum(len(each.prompted.prompts) for each in cases) == 20


def test_a_wrong_decoder_is_refused(decoder: Path, cases: list[Case], tmp_path: Path) -> None:
    model = onnx.load(decoder)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.2), weight.name))
    onnx.save(model, tmp_path / "wrong.onnx")
    assert {each.kind for each in failures(tmp_path / "wrong.onnx", cases)} >= {"masks", "scores"}


def stored_wrongly(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    """Make embeddings stored as int8 come back changed."""
    right = embedding.stored

    def wrong(features: Any, form: str) -> tuple[Any, int]:
        kept, size = right(features, form)
        return change(kept) if form == "int8" else kept, size

    monkeypatch.setattr(embedding, "stored", wrong)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values * np.float32(0.5),
        lambda values: values[:, ::-1].copy(),
        lambda values: np.where(np.arange(values.size).reshape(values.shape) == 7, np.nan, values),
    ],
    ids=["a wrong scale", "another order of channels", "not a number"],
)
def test_a_wrongly_stored_embedding_is_refused(
    change: Callable[[np.ndarray], np.ndarray],
    decoder: Path,
    cases: list[Case],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored_wrongly(monkeypatch, change)
    (failure,) = failures(decoder, cases)
    assert (failure.kind, failure.tensor, failure.rule) == (
        "embedding iou",
        "int8",
        "[fidelity] q8",
    )
    assert str(failure).startswith(
        "mean IoU with PyTorch's masks from embeddings stored as int8 is "
    )


def test_an_embedding_that_is_not_a_number_is_refused(decoder: Path, cases: list[Case]) -> None:
    wrong = [replace(each, expected=deepcopy(each.expected)) for each in cases]
    for case in wrong:
        case.expected.features["image_embed"] *= np.nan
    wrong = [
        replace(each, prompted=each.prompted._replace(features=each.expected.features))
        for each in wrong
    ]
    found = failures(decoder, wrong)
    assert {each.tensor for each in found if each.kind == "embedding iou"} == set(STORED_AS)
    assert {each.found for each in found} == {None}


REPORT: dict[str, Any] = {
    "violations": [],
    "truth": None,
    "differences": {"features": {}, "prompts": {"box": {"masks": 0.0, "scores": 0.0}}},
}


def test_a_report_without_features_proves_nothing_for_a_client_that_encodes() -> None:
    with pytest.raises(KeyError, match="differences"):
        verify_failures(REPORT, Tolerances(), 0.5)


def test_a_report_that_lacks_a_stored_form_of_embeddings_proves_nothing() -> None:
    stored = {form: {"mask_iou": {"mean": 1.0}} for form in STORED_AS}
    report = {**REPORT, "embeddings": {"stored": stored}}
    assert verify_failures(report, Tolerances(), 0.5, Checks().fidelity) == []
    del stored["float16"]
    with pytest.raises(KeyError, match="float16"):
        verify_failures(report, Tolerances(), 0.5, Checks().fidelity)


def test_an_int8_embedding_errs_by_at_most_half_a_step_of_its_channel() -> None:
    features = np.random.default_rng(1).normal(size=(1, 8, 4, 4)).astype(np.float32)
    features[0, 1] *= 1000
    features[0, 2] = 0
    kept, size = embedding.stored(features, "int8")
    steps = np.abs(features).max(axis=(2, 3), keepdims=True) / 127
    assert (np.abs(kept - features) <= 0.5001 * steps).all()
    assert size == features.size + 8 * 4


def test_an_embedding_file_has_the_format_that_bioimage_io_reads(
    cases: list[Case], tmp_path: Path
) -> None:
    prompted = cases[-1].prompted
    embedding.write(str(tmp_path / "embedding.npz"), prompted, CLIENT, "vit_b")
    with np.load(tmp_path / "embedding.npz") as file:
        assert set(file) == {"features", "input_size", "original_size", "model_type"}
        assert file["features"].dtype == np.float32
        assert file["original_size"].tolist() == [320, 107]
        assert file["input_size"].tolist() == [256, 86]
    features, size = embedding.read(str(tmp_path / "embedding.npz"))
    assert size == prompted.image.shape[:2]
    assert prompted.features is not None
    np.testing.assert_array_equal(features, prompted.features["image_embed"])


# --- the build -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cheap(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("alone") / "project", cheap=True)
    install_packages(project.root)
    project.configure(
        '[build]\ndeploy = "public"\n[browser]\nenabled = false\n'
        '[models.lm]\nmodel_type = "vit_b"\nurl = "synthetic:"\nclient = "bioimage.io"\n'
        'variants = ["fp32", "q8"]\n'
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


def test_the_manifest_names_the_encoder_whose_embeddings_are_accepted(cheap: Project) -> None:
    folder = cheap.root / "public/vit_b"
    assert {path.name for path in folder.iterdir()} == {
        *("manifest.json", "decoder.onnx", "decoder_quantized.onnx")
    }
    content = json.loads((folder / "manifest.json").read_text())
    schema = Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert [each.message for each in schema.iter_errors(content)] == []
    assert "encoder" not in content
    accepted = content["embeddings"]
    assert accepted["checkpoint_sha256"] == content["checkpoint"]["sha256"]
    assert accepted["image_size"] == 1024
    assert accepted["tensor"]["shape"] == [1, 256, 64, 64]
    assert accepted["stored"].keys() == STORED_AS.keys()
    assert content["preprocessing"]["resize"] == "longest side"
    manifest = read_manifest(folder / "manifest.json")
    assert manifest is not None
    assert manifest.side == 1024


def test_a_second_build_reruns_nothing_and_status_is_fresh(cheap: Project) -> None:
    assert cheap.build().ran == set()
    assert "fresh" in cheap.doit("status").output


def test_the_report_covers_a_decoder_alone_and_its_stored_embeddings(cheap: Project) -> None:
    outcome = cheap.doit("report")
    assert outcome.status == 0, outcome.output
    for kind in ("html", "md"):
        text = (cheap.root / f"build/report/report.{kind}").read_text()
        assert "Only a decoder. " in text
        assert "int8" in text


def test_the_page_omits_a_decoder_alone_and_speed_refuses_it_with_the_reason(
    cheap: Project,
) -> None:
    config = load(cheap.root / "config/models.toml")
    assert serve.deployed(config) == []
    outcome = cheap.doit("speed:lm")
    assert outcome.status != 0
    assert "lm has only a decoder, and speed compares the times of encoders" in outcome.output
    assert "Traceback" not in outcome.output


def test_a_page_that_is_not_isolated_gets_no_cross_origin_headers(tmp_path: Path) -> None:
    import httpx2

    (tmp_path / "index.html").write_text("<!doctype html>")
    with server.serving(server.application({"/": tmp_path}, isolated=False)) as address:
        headers = httpx2.get(address).headers
    assert not [name for name in headers if name.lower().startswith("cross-origin")]
    assert headers["X-Content-Type-Options"] == "nosniff"


# --- MobileSAM, at its own size ------------------------------------------------------------------


@pytest.fixture(scope="module")
def mobile(executable: str | None, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("mobile") / "project", cheap=False)
    (project.root / "web").symlink_to(ROOT / "web")
    project.configure(
        '[build]\ndeploy = "public"\n[browser]\nenabled = true\n'
        '[models.mobile]\nmodel_type = "vit_t"\nurl = "synthetic:?seed=1"\n'
        'client = "bioimage.io"\nvariants = ["fp32", "fp16", "q8"]\n[fidelity]\nimages = 2\n'
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    return project


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", ".fp16", ".q8"])
def test_onnxruntime_web_1_19_runs_each_variant_with_one_thread(
    variant: str, mobile: Project
) -> None:
    path = mobile.root / f"build/models/mobile/browser{variant}.json"
    report = json.loads(path.read_text())
    assert report["failures"] == []
    assert report["runtime"] == "onnxruntime-web 1.19.2"
    assert (report["isolated"], report["threads"]) == (False, 1)
    assert report["providers"].keys() == {"wasm"}
    assert report["providers"]["wasm"]["mask_iou"] > (0.87 if "q8" in variant else 0.999)


@pytest.mark.slow
def test_the_documented_programs_write_an_embedding_and_decode_it(
    mobile: Project, executable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """segment-anything lacks MobileSAM, so it is added to its list, and the program runs here."""
    box = [120, 80, 360, 290]
    Image.fromarray(natural_image(300, 400)).save(tmp_path / "image.png")
    model = loading.load_model("vit_t", mobile.root / "build/checkpoints/mobile.pt")
    torch.save(model.state_dict(), tmp_path / "mobile.pth")

    def build(checkpoint: str) -> Any:
        built = loading.build_model("vit_t")
        built.load_state_dict(torch.load(checkpoint))
        return built

    monkeypatch.setitem(segment_anything.sam_model_registry, "vit_t", build)
    (code,) = programs("use.md", "A decoder alone", "python")
    (tmp_path / "program.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py", "vit_t", "mobile.pth", "image.png"])
    with torch.no_grad():
        predictor = runpy.run_path("program.py")["predictor"]
    masks, scores, _ = predictor.predict(box=np.array(box), multimask_output=True)
    expected = masks[scores.argmax()]
    assert 0 < expected.mean() < 1

    module, use = programs("use.md", "A decoder alone", "js")
    (tmp_path / "program.js").write_text(module)
    (tmp_path / "use.js").write_text(
        'import { embeddingAt, load, segment } from "./program.js";\n'
        f"{use}\n"
        "export const inside = [];\n"
        "for (let i = 3; i < mask.data.length; i += 4) inside.push(mask.data[i] ? 1 : 0);\n"
    )
    assert str(box) in use
    (tmp_path / "index.html").write_text("<!doctype html><title>A page</title>")
    folders = {
        "/vit_b": mobile.root / "public/vit_t",
        "/onnxruntime-web": packages.MODULES / CLIENT.paths[0].package / "dist",
        "/fflate": packages.MODULES / "fflate/esm",
        "/": tmp_path,
    }
    app = server.application(folders, isolated=False)
    with server.serving(app) as address, chromium.launched(executable, webgpu=False) as browser:
        page = browser.new_page()
        page.goto(f"{address}/index.html")
        inside = page.evaluate("async () => (await import('/use.js')).inside")
    assert mask_iou(np.array(inside, bool).reshape(expected.shape), expected) > 0.999

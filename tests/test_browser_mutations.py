"""Mistakes in the page's scripts that show only in a browser: its proof must catch each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_javascript_mutations import Mutation

from tasks import browser, export
from tasks.config.checks import BrowserCheck
from tasks.config.models import Decoder
from tasks.proof.failures import Failure
from tasks.proof.judgement import browser_failures
from tasks.running import child
from tasks.web import packages

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[1] / "demo/sam2_demo.yaml"

MUTATIONS = [
    Mutation("blue comes first", "shared/preprocessing.js", "4 + channel", "4 + 2 - channel"),
    Mutation(
        "x is scaled by the height", "shared/preprocessing.js", "x: x * scaleX", "x: x * scaleY"
    ),
    Mutation(
        "an image is drawn too small",
        "shared/image.js",
        "drawImage(image, 0, 0, scaledWidth, scaledHeight)",
        "drawImage(image, 0, 0, scaledWidth, scaledHeight - 4)",
    ),
    Mutation(
        "an image is placed as if it were square",
        "proof/check.js",
        "picture.naturalWidth, picture.naturalHeight",
        "picture.naturalWidth, picture.naturalWidth",
    ),
    Mutation(
        "another mask is refined",
        "proof/check.js",
        "best(loaded.manifest, own)",
        "(best(loaded.manifest, own) + 1) % own.length",
    ),
    Mutation(
        "no mask is refined",
        "proof/check.js",
        "previous ? bestMasks(answers[previous]) : null",
        "null",
    ),
]

Prove = Callable[[], list[Failure]]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Graphs with the demo's weights for images of 256 pixels."""
    folder = tmp_path_factory.mktemp("graphs")
    architecture = folder / "small.yaml"
    architecture.write_text(DEMO.read_text().replace("image_size: 1024", "image_size: 256"))
    paths = {name: str(folder / f"{name}.onnx") for name in ("encoder", "decoder")}
    traced = {name: folder / f"{name}.traced" for name in paths}
    decoders = {"decoder": Decoder("points", "multi", "many")}
    weights = DEMO.with_suffix(".pt")
    with torch.no_grad():
        export.write_graphs(
            export.ExportRequest(str(architecture), weights, 20, "plain", decoders, traced)
        )
    pairs = [[str(traced[name]), path] for name, path in paths.items()]
    child.run("tasks.simplify:simplify_graphs", {"pairs": pairs}, folder / "log", False)
    return paths


@pytest.fixture
def page(tmp_path: Path, npm_packages: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the page, served in place of the original."""
    copied = tmp_path / "page"
    shutil.copytree(packages.PAGE, copied)
    monkeypatch.setattr(packages, "PAGE", copied)
    return copied


@pytest.fixture
def prove(graphs: dict[str, str], page: Path, executable: str | None, tmp_path: Path) -> Prove:
    def run() -> list[Failure]:
        (tmp_path / "scratch").mkdir()
        figures = browser.prove(
            browser.BrowserRequest(
                graphs,
                {name: f"{name}.onnx" for name in graphs},
                client="samexporter",
                masks="multi",
                prompts="many",
                precision="fp32",
                scratch=str(tmp_path / "scratch"),
                executable=executable,
                webgpu=False,
                decoder_runs=1,
            )
        )
        return browser_failures(figures, BrowserCheck(), 1.0)

    return run


def test_the_unmodified_page_passes(prove: Prove) -> None:
    assert prove() == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: f"{each.script}: {each.name}")
def test_the_proof_catches_the_mistake(prove: Prove, page: Path, mutation: Mutation) -> None:
    script = page / mutation.script
    text = script.read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1
    script.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    assert prove()

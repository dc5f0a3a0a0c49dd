"""Execution paths (`doit paths`): which exist, which a browser cannot run, and what they draw."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from conftest import give_up
from project import ROOT, Project

from tasks.clients import bioimageio, nimbusimage, transformers_js
from tasks.clients.runtime import Build, RuntimePath
from tasks.commands.paths import VERSIONS, reachable, runtime_paths
from tasks.config.checks import BrowserCheck
from tasks.proof.paths import PathFigures, disagreements
from tasks.web import browsers
from tasks.web.browsers import Browser
from tasks.web.chromium import Refused
from tasks.web.programs import BrowserProgram, engine_of
from tasks.web.started_browser import StartedBrowser, StepExchange, started

BUILDS: list[tuple[str, Build]] = [
    ("onnxruntime-web", "default"),
    ("onnxruntime-web", "wasm"),
    ("onnxruntime-web-1.30", "jspi"),
]
EVERYTHING = {"simd": True, "jspi": True, "adapter": {"name": "a GPU", "software": False}}


def test_the_paths_of_the_client_come_first_and_all_others_follow() -> None:
    assert runtime_paths(nimbusimage.CLIENT.paths, BUILDS) == [
        RuntimePath("wasm", "webgpu"),
        RuntimePath("webgpu", "webgpu", layout="NHWC"),
        RuntimePath("wasm", "default"),
        RuntimePath("webgpu", "default", layout="NHWC"),
        RuntimePath("webgpu", "default", layout="NCHW"),
        RuntimePath("wasm", "wasm"),
        RuntimePath("wasm", "jspi", "onnxruntime-web-1.30"),
        RuntimePath("webgpu", "jspi", "onnxruntime-web-1.30", "NHWC"),
        RuntimePath("webgpu", "jspi", "onnxruntime-web-1.30", "NCHW"),
    ]


def test_a_client_with_its_own_onnxruntime_uses_no_other() -> None:
    used = transformers_js.CLIENT.paths
    assert runtime_paths(used, BUILDS) == list(used)


def test_a_client_without_webgpu_has_only_wasm_paths() -> None:
    paths = runtime_paths(bioimageio.CLIENT.paths, BUILDS)
    assert {path.provider for path in paths} == {"wasm"}


def test_the_versions_are_the_pinned_the_newest_and_the_oldest_installed_package() -> None:
    packages = json.loads((ROOT / "web/package.json").read_text())["dependencies"]
    pinned, newest, oldest = (packages[name].rpartition("@")[2] for name in VERSIONS)
    numbers = [tuple(map(int, each.split("."))) for each in (oldest, pinned, newest)]
    assert numbers == sorted(set(numbers))
    assert bioimageio.CLIENT.paths[0].package == VERSIONS[2]


@pytest.mark.parametrize(
    ("lacking", "provider", "build", "reason"),
    [
        ({"simd": False}, "wasm", "wasm", "no WebAssembly SIMD"),
        ({"adapter": None}, "webgpu", "webgpu", "no WebGPU adapter"),
        ({"jspi": False}, "wasm", "jspi", "no JavaScript Promise Integration"),
    ],
)
def test_a_missing_browser_feature_is_one_reason_for_all_paths_that_need_it(
    lacking: dict[str, Any], provider: Any, build: Build, reason: str
) -> None:
    path = RuntimePath(provider, build)
    paths = [path, replace(path, package="onnxruntime-web-1.30")]
    assert reachable(paths, EVERYTHING) == [(each, None) for each in paths]
    ((first, words),) = reachable(paths, {**EVERYTHING, **lacking})
    assert first == path
    assert reason in str(words)


def figures(**values: Any) -> PathFigures:
    return PathFigures("Firefox 153", "webgpu", "1.27.0", "wasm", None, **values)


@pytest.mark.parametrize("iou", [0.998, float("nan")])
@pytest.mark.parametrize("kind", ["mask_iou", "tracking_iou"])
def test_masks_that_differ_from_onnxruntimes_are_a_problem(kind: str, iou: float) -> None:
    (problem,) = disagreements([figures(), figures(**{kind: iou})], 0.999)
    assert problem.startswith("Firefox 153, onnxruntime-web/webgpu 1.27.0, WASM: IoU")
    assert problem.endswith("expected at least 0.999")
    assert not disagreements([figures(**{kind: 0.999}), figures(reason="no adapter")], 0.999)


@pytest.mark.parametrize(
    ("program", "engine"),
    [
        ("/usr/bin/firefox-esr", "Firefox"),
        ("/usr/lib/webkit2gtk-4.1/MiniBrowser", "WebKit"),
        ("/opt/google/chrome/google-chrome", "Chromium"),
    ],
)
def test_the_engine_of_a_browser_is_recognized_by_its_program(program: str, engine: str) -> None:
    assert engine_of(program) == engine


def test_configured_browsers_replace_the_detected_ones() -> None:
    check = BrowserCheck(executables=(sys.executable, "no-such-browser"))
    assert browsers.programs(check, Browser("chromium")) == (
        BrowserProgram("Chromium", sys.executable),
    )


def script(folder: Path, text: str) -> BrowserProgram:
    path = folder / "browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return BrowserProgram("Chromium", str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("exec sleep 600", "has not answered for 0.3 s: opening the page"),
        ("echo no display; exit 3", "ended with status 3; the log has its output"),
    ],
)
def test_a_browser_that_does_not_open_the_page_is_refused_with_the_reason(
    text: str, words: str, tmp_path: Path
) -> None:
    program = script(tmp_path, text)
    with started(program, tmp_path / "profile", StepExchange(), 0.3) as browser:
        browser.open("http://127.0.0.1:9/page.html")
        with pytest.raises(Refused, match=words):
            browser.run({"step": "environment"})
    assert not (tmp_path / "profile").exists()


def test_a_program_that_does_not_start_is_refused_by_name(tmp_path: Path) -> None:
    program = BrowserProgram("Chromium", str(tmp_path / "nothing"))
    browser = StartedBrowser(program, tmp_path / "profile", StepExchange(), 1)
    with pytest.raises(Refused, match=r"nothing does not start: No such file"):
        browser.open("http://127.0.0.1:9/page.html")


def paths_of(project: Project) -> list[PathFigures]:
    content = json.loads((project.root / "build/models/demo/paths.json").read_text())
    return [PathFigures(**each) for each in content["paths"]]


@pytest.fixture
def with_browser(demo: Project, tmp_path: Path) -> Any:
    """The built model, in a project whose `doit paths` starts another browser."""

    def use(executable: str) -> Project:
        project = demo.copy_to(tmp_path / "project")
        config = project.root / "config/models.toml"
        line = f'[browser]\nexecutables = ["{executable}"]\n'
        config.write_text(config.read_text().replace("[browser]\n", line))
        return project

    return use


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_a_browser_that_draws_other_masks_fails_and_is_recorded(with_browser: Any) -> None:
    project = with_browser(str(ROOT / "tests/fakes/wrong_browser.py"))
    outcome = project.build("paths:demo", "--client-paths")
    assert outcome.status == 1
    assert "demo: masks differ from onnxruntime's" in outcome.output
    assert "onnxruntime-web/wasm 1.27.0, WASM: IoU 0" in outcome.output
    first = paths_of(project)[0]
    assert first.mask_iou is not None
    assert first.mask_iou < 0.9


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_a_software_adapter_runs_the_prompts_in_each_order_and_a_second_image(
    with_browser: Any,
) -> None:
    check = BrowserCheck()
    chromium = browsers.programs(check, browsers.find(check))[0]
    project = with_browser(chromium.executable)
    outcome = project.build("paths:demo", "--client-paths")
    assert outcome.status == 0, outcome.output
    wasm, webgpu = paths_of(project)
    assert (wasm.provider, webgpu.provider, webgpu.layout) == ("wasm", "webgpu", "NHWC")
    assert webgpu.ran == ["encoder", "decoder"]
    assert webgpu.nodes_placed
    assert webgpu.mask_iou is not None
    assert webgpu.mask_iou >= 0.999
    log = (project.root / "build/logs/paths~demo.log").read_text()
    assert log.count("encoder on webgpu: run") == 2
    assert log.count("decoder on webgpu: create its session") == 2


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_a_missing_browser_is_reported_by_name(with_browser: Any) -> None:
    outcome = with_browser("no-such-browser").build("paths:demo")
    assert outcome.status == 1
    assert "Browser not found: no-such-browser. Correct [browser] executables." in outcome.output


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
@pytest.mark.parametrize("name", ["firefox-esr", "MiniBrowser"])
def test_another_engine_draws_the_same_masks_without_a_driver(name: str, with_browser: Any) -> None:
    engine = engine_of(name)
    check = BrowserCheck()
    programs = [
        each for each in browsers.programs(check, browsers.find(check)) if each.engine == engine
    ]
    if not programs or (engine == "WebKit" and not shutil.which("Xvfb")):
        if engine == "Firefox":
            give_up("needs Firefox")
        pytest.skip("needs WebKitGTK's MiniBrowser and Xvfb")
    project = with_browser(programs[0].executable)
    outcome = project.build("paths:demo", "--client-paths")
    assert outcome.status == 0, outcome.output
    paths = paths_of(project)
    ran = [path for path in paths if path.ran]
    assert [(path.provider, path.build) for path in ran] == [("wasm", "wasm")]
    assert all(path.mask_iou is not None and path.mask_iou >= 0.999 for path in ran)
    assert all(path.reason for path in paths if not path.ran)
    assert project.build("paths:demo", "--client-paths").ran == set()
    assert project.build("report").status == 0
    page = (project.root / "build/report/report.html").read_text()
    assert page.count(f'<th scope="row">{ran[0].browser}</th>') == len(paths)


# The operators of image models that onnxruntime's layout transformer rewrites for a provider that
# prefers NHWC (layout_transformation.cc of 1.27).
REWRITTEN = {
    *("AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace"),
    *("GlobalAveragePool", "GridSample", "InstanceNormalization", "MaxPool", "Resize"),
}


@pytest.mark.slow
@pytest.mark.xdist_group("demo")
def test_the_tensor_layout_changes_no_node_of_the_decoder_and_few_of_the_encoder(
    demo: Project,
) -> None:
    rewritten = {}
    for graph in ("encoder", "decoder"):
        model = onnx.load(demo.root / f"build/models/demo/{graph}.onnx").graph
        shapes = {each.name: tuple(each.dims) for each in model.initializer}
        rewritten[graph] = [
            (node.op_type, shapes[node.input[1]][2:] if node.op_type == "Conv" else ())
            for node in model.node
            if node.op_type in REWRITTEN
        ]
    assert rewritten["decoder"] == []
    operators = Counter(operator for operator, _ in rewritten["encoder"])
    assert operators.keys() == {"Conv", "MaxPool"}
    assert (1, 1) not in [kernel for _, kernel in rewritten["encoder"]]

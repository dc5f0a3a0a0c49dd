"""Imports determine the code of a stage, and a changed statement there reruns the stage."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path, PurePath

import pytest
from project import ROOT, Project, install_packages

from tasks import (
    browser,
    deploy,
    export,
    fidelity,
    reference,
    simplify,
    tracking,
    tracking_reference,
    variant,
    verify,
)
from tasks.building import code
from tasks.building.code import closure
from tasks.clients.registry import CLIENTS
from tasks.config.models import DRAWN
from tasks.model.families import sam2
from tasks.proof import signature
from tasks.system.module_code import ModuleCode, read_module
from tasks.system.versions import versions_of_imported
from tasks.web import packages

STAGES = {
    "export": "tasks.export:export",
    "simplify": "tasks.simplify:simplify",
    "verify": "tasks.verify:verify",
    "variant": "tasks.variant:make_variant",
    "reference": "tasks.reference:compute_reference",
    "fidelity": "tasks.fidelity:measure_fidelity",
    "browser": "tasks.browser:prove_in_browser",
    "deploy": "tasks.deploy:deploy",
}


@pytest.fixture(autouse=True)
def in_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def reached(stage: str) -> frozenset[str]:
    """The files that a stage reaches, with an architecture of SAM 2's family."""
    also = {"export": sam2.FAMILY.tracing}
    also |= dict.fromkeys(("verify", "reference"), sam2.FAMILY.computing)
    return closure((STAGES[stage], *also.get(stage, ()))).files


# --- the code of a module ----------------------------------------------------------------------


def read(text: str) -> ModuleCode:
    return read_module(text.encode(), "here")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a.b as e, c", ["a.b", "c"]),
        ("from a.b import c as e, d", ["a.b.c", "a.b.d"]),
        ("from a.b import *", ["a.b.*"]),
        ("from .c import d", ["here.c.d"]),
        ("from . import c", ["here.c"]),
        ("def f():\n    from a import b", ["a.b"]),
        ("try:\n    from a import b\nexcept ImportError:\n    b = None", ["a.b"]),
        ("run('tasks.export:write_graphs')", ["tasks.export.write_graphs"]),
        ("run('tasks.drawing.scenes:scene')", ["tasks.drawing.scenes.scene"]),
        ("print('tasks: of course', 'not.ours:function')", []),
        ("if TYPE_CHECKING:\n    from a import b\nelse:\n    from c import d", ["c.d"]),
    ],
)
def test_imports_are_found_except_those_for_type_checkers(text: str, names: list[str]) -> None:
    assert read(text).imports == names


TEXT = '''"""Doubles."""


def double(x: int) -> int:
    """Twice x."""
    return 2 * x
'''


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("    return", "    # by addition\n    return"),
        ("Twice x.", "Two times x."),
        ('    """Twice x."""\n', ""),
        ("2 * x", "(2 * x)"),
        ("\n\n\n", "\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_hash(before: str, now: str) -> None:
    assert before in TEXT
    assert read(TEXT.replace(before, now)).sha256 == read(TEXT).sha256


@pytest.mark.parametrize(
    ("before", "now"),
    [("2 * x", "3 * x"), ("2 * x", "x * 2"), ("x: int", "x: float"), ("2 * x", '"Twice x."')],
)
def test_a_changed_statement_changes_the_hash(before: str, now: str) -> None:
    assert read(TEXT.replace(before, now)).sha256 != read(TEXT).sha256


def test_text_that_is_not_python_is_hashed_verbatim() -> None:
    assert read("a b") != read("a  b")


# --- the code of a stage -----------------------------------------------------------------------


def test_export_reaches_the_model_and_the_contract_but_no_proof() -> None:
    assert {
        "tasks/export.py",
        "tasks/model/load.py",
        "tasks/model/architecture.py",
        "tasks/model/encoder_patches.py",
        "tasks/model/decoder_patches.py",
        "tasks/model/patching.py",
        "tasks/model/published.py",
        "tasks/clients/contract.py",
    } <= reached("export")
    assert not {"tasks/verify.py", "tasks/inference/truth.py", "tasks/web/chromium.py"} & reached(
        "export"
    )


def test_export_deploy_and_every_proof_reach_the_contract() -> None:
    for stage in ("export", "verify", "fidelity", "browser", "deploy"):
        assert "tasks/clients/contract.py" in reached(stage), stage


def test_the_pytorch_reference_does_not_reach_the_judgement() -> None:
    assert "tasks/proof/judgement.py" not in reached("reference")
    assert "tasks/inference/reference.py" in reached("reference")


def test_simplify_reaches_only_itself_and_the_code_for_graph_files_and_tensor_names() -> None:
    assert reached("simplify") == {
        "tasks/simplify.py",
        "tasks/clients/contract.py",
        "tasks/inference/graph_file.py",
        "tasks/inference/naming.py",
    }


def test_stages_that_run_prompts_reach_the_client_description_but_no_client() -> None:
    """The client and its expectations are values in the trace."""
    for stage in ("verify", "fidelity", "browser"):
        found = {path for path in reached(stage) if path.startswith("tasks/clients/")}
        values = {f"tasks/clients/{name}.py" for name in ("client", "contract", "runtime")}
        assert found == values, stage


def test_no_stage_reaches_the_code_that_runs_the_build() -> None:
    for stage in STAGES:
        assert not [path for path in reached(stage) if path.startswith(NOT_REACHED)]


# They serve files whose hashes the page checks.
SERVING = {"starlette", "uvicorn"}

# Imported by functions that the stage does not call, in modules that it shares.
NOT_CALLED = {
    "tasks.reference:compute_reference": {"onnx", "onnxruntime"},
    "tasks.tracking:measure_tracking": {"torch", "sam2"},
    "tasks.deploy:deploy": {"numpy"},
}

VERSIONS: dict[str, tuple[str, ...]] = {
    "tasks.export:export": export.PACKAGES,
    "tasks.simplify:simplify": simplify.PACKAGES,
    "tasks.verify:verify": verify.PACKAGES,
    "tasks.variant:make_variant": variant.PACKAGES,
    "tasks.reference:compute_reference": reference.PACKAGES,
    "tasks.fidelity:measure_fidelity": fidelity.PACKAGES,
    "tasks.tracking_reference:compute_reference": tracking_reference.PACKAGES,
    "tasks.tracking:measure_tracking": tracking.PACKAGES,
    "tasks.browser:prove_in_browser": browser.PACKAGES,
    "tasks.deploy:deploy": (*deploy.PACKAGES, *signature.PACKAGES),
}


@pytest.mark.parametrize("action", VERSIONS)
def test_the_version_of_every_imported_package_is_an_input_of_the_stage(action: str) -> None:
    imported = closure((action,)).packages - SERVING - NOT_CALLED.get(action, set())
    assert versions_of_imported(imported).keys() <= set(VERSIONS[action])


def test_packages_imported_by_a_truth_function_are_found() -> None:
    assert closure((DRAWN,)).packages == {"PIL", "numpy"}


def test_npm_files_loaded_by_a_page_are_hashed_as_installed() -> None:
    scripts = ("proof/check-transformers.html", "proof/check-transformers.js")
    text = "".join((packages.PAGE / name).read_text() for name in scripts)
    text += " ".join(path.bundle for client in CLIENTS.values() for path in client.paths)
    named = set(re.findall(r"/npm/([\w@/.-]+\.m?js)", text))
    named.add("onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm")
    assert len(named) == 8
    for each in named:
        patterns = [f"{name}/{file}" for name in packages.LOADERS for file in packages.SERVED]
        assert any(PurePath(each).match(pattern) for pattern in patterns), each


def test_a_page_reaches_the_scripts_that_it_imports() -> None:
    reached = {
        file.removeprefix("web/page/") for file in code.javascript("web/page/proof/check.html")
    }
    assert {"proof/check.html", "proof/check.js", "proof/node-placement.js"} <= reached
    assert {"shared/model.js", "shared/preprocessing.js", "shared/image.js"} <= reached
    assert "page.js" not in reached


BUILD_PACKAGES = ("system", "console", "remote", "running", "building", "records")
REGISTRIES = ("tasks/clients/registry.py", "tasks/model/families/registry.py")
NOT_REACHED = (*(f"tasks/{package}/" for package in BUILD_PACKAGES), *REGISTRIES)

TRACER = """
import json, runpy, sys
called = set()
def note(frame, event, argument):
    if event == "call" and frame.f_code.co_name != "<module>":
        called.add(frame.f_code.co_filename)
from tasks import export, fidelity, reference, simplify, verify
from tasks.config.models import Decoder
from tasks.model import load
from tasks.model.trained import TrainedModel
work, yaml = sys.argv[1:]
load.make_synthetic(yaml, 1, f"{work}/w.pt")
raw = {name: f"{work}/raw.{name}.onnx" for name in ("encoder", "decoder")}
made = {name: f"{work}/{name}.onnx" for name in raw}
shown = {"masks": "multi", "prompts": "many"}
model = {"architecture": yaml, "checkpoint": f"{work}/w.pt"}
trained = TrainedModel(**model, architecture_file=yaml)
graph = {"opset": 20, "attention": "plain"}
asked = {"draw": "tasks.drawing.scenes:scene"}
loaded = {"client": "samexporter", **shown}
steps = {
    "export": lambda: export.write_graphs(export.ExportRequest(
        **model, **graph, decoders={"decoder": Decoder(**shown, interface="points")}, graphs=raw)),
    "simplify": lambda: simplify.simplify_graphs(simplify.SimplifyRequest(
        tuple((raw[name], made[name]) for name in raw))),
    "verify": lambda: verify.measure(verify.VerifyRequest(
        trained, **graph, **loaded, graphs=(made,), truth="tasks.drawing.scenes:scene")),
    "reference": lambda: reference.write_reference(reference.ReferenceRequest(
        trained, ("multi",), **asked, count=1, destination=f"{work}/r.npz")),
    "fidelity": lambda: fidelity.compare(fidelity.FidelityRequest(
        made, **loaded, reference=f"{work}/r.npz", **asked, picture=f"{work}/p.png")),
}
found = {}
for name, step in steps.items():
    torch = sys.modules.pop("torch") if name == "simplify" else None
    called.clear()
    sys.setprofile(note)
    step()
    sys.setprofile(None)
    if torch:
        sys.modules["torch"] = torch
    found[name] = sorted(called)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_closure_contains_every_module_that_a_child_calls(tmp_path: Path) -> None:
    """A profiler records the functions that run, independently of imports."""
    import json

    yaml = tmp_path / "small.yaml"
    yaml.write_text((ROOT / "tests/narrow.yaml").read_text().replace("512", "256"))
    done = subprocess.run(
        [sys.executable, "-c", TRACER, str(tmp_path), str(yaml)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    called = json.loads(done.stdout.splitlines()[-1])
    for stage, files in called.items():
        own = {
            Path(file).relative_to(ROOT).as_posix()
            for file in files
            if Path(file).is_relative_to(ROOT) and ".venv" not in file
        }
        run = {file for file in own if not file.startswith(NOT_REACHED)}
        assert run, stage
        drawn = closure(("tasks.drawing.scenes:scene",)).files
        assert run <= reached(stage) | drawn, stage


# --- reruns ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Every stage built once, with a variant, a truth and a fake browser."""
    project = Project(tmp_path_factory.mktemp("sources") / "project", cheap=True)
    install_packages(project.root)
    (project.root / "web/page").symlink_to(ROOT / "web/page")
    project.configure(
        f'[browser]\nexecutable = "{sys.executable}"\n'
        '[models.m]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
        'variants = ["fp32", "q8"]\ntruth = "tasks.drawing.scenes:scene"\n'
    )
    outcome = project.build()
    assert outcome.status == 0, outcome.output
    assert {name.split(":")[0] for name in outcome.ran} == {"checkpoint", *STAGES}
    return project


def rerun_after_an_edit(built: Project, module: str, line: str) -> set[str]:
    source = built.root / module
    source.write_text(f"{source.read_text()}\n{line}\n")
    outcome = built.build()
    assert outcome.status == 0, outcome.output
    return {name.split(":")[0] for name in outcome.ran}


@pytest.mark.parametrize(
    ("module", "stages"),
    [
        ("tasks/simplify.py", {"simplify"}),
        ("tasks/model/patching.py", {"export"}),
        ("tasks/model/sam2_model.py", {"checkpoint", "export", "verify", "reference"}),
        ("tasks/inference/sam2_predictor.py", {"verify", "reference"}),
        ("tasks/model/edgetam.py", {"export"}),
        ("tasks/proof/recommendation.py", {"deploy"}),
        ("tasks/running/child.py", set()),
        ("tasks/drawing/scenes.py", {"verify", "reference", "fidelity", "browser"}),
    ],
)
def test_an_edit_reruns_only_the_stages_that_use_the_module(
    built: Project, module: str, stages: set[str]
) -> None:
    assert rerun_after_an_edit(built, module, "ANOTHER = True") == stages


@pytest.mark.parametrize("module", ["tasks/export.py", "tasks/clients/contract.py"])
def test_an_edit_of_a_comment_reruns_nothing(built: Project, module: str) -> None:
    assert rerun_after_an_edit(built, module, "# another line") == set()


def test_changed_truth_data_reruns_the_proofs(built: Project) -> None:
    text = (built.root / "config/models.toml").read_text()
    (built.root / "masks").mkdir()
    (built.root / "masks/1.tif").write_bytes(b"one")
    built.configure(f'{text}truth_data = ["masks/*.tif"]\n')
    proofs = {"verify:m", "reference:m", "fidelity:m:fp32", "fidelity:m:q8", "browser:m:q8"}
    assert proofs <= built.build().ran
    assert built.build().ran == set()
    (built.root / "masks/1.tif").write_bytes(b"another")
    assert proofs <= built.build().ran
    (built.root / "masks/2.tif").write_bytes(b"two")
    assert proofs <= built.build().ran
    built.configure(text)
    assert built.build().status == 0


def test_a_truth_data_pattern_that_matches_no_file_is_refused(built: Project) -> None:
    text = (built.root / "config/models.toml").read_text()
    built.configure(f'{text}truth_data = ["nothing/*.tif"]\n')
    outcome = built.doit("run")
    built.configure(text)
    assert outcome.status == 3
    assert "truth_data: found 'nothing/*.tif', which no file matches" in outcome.output


def test_a_change_to_the_contract_reaches_the_deployed_manifest(built: Project) -> None:
    source = built.root / "tasks/clients/contract.py"
    source.write_text(source.read_text().replace('"layout": "NCHW"', '"layout": "rows"'))
    assert built.build().status == 0
    manifest = built.root / "public/onnx-models/sam/sam2_hiera_tiny/manifest.json"
    assert '"layout": "rows"' in manifest.read_text()

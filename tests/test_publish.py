"""Publishing, by the real command and huggingface_hub's client, to a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import manifests
import pytest
import yaml
from conftest import give_up
from hub import Answer
from project import ROOT, Outcome, Project
from server import FileServer
from writable_hub import ATTRIBUTES, READS_ONLY, TOKEN, WritableHub, error_answer

from tasks.clients.client import Client
from tasks.clients.registry import CLIENTS
from tasks.commands.publish import Plan, compare, published_names, unproven
from tasks.config.checkpoint_record import Checkpoint
from tasks.config.checks import Checks
from tasks.config.location import CheckpointLocation
from tasks.config.models import Source, Target
from tasks.config.rules import DEFAULT_CLIENT
from tasks.proof import card
from tasks.proof.manifest import (
    BrowserProof,
    BrowserRules,
    ProviderProof,
    read_manifest,
)
from tasks.records.listing import MATERIALS, SIGNATURE, STATEMENT
from tasks.remote.repository import RemoteFile
from tasks.web import packages

REPO = "my-lab/sam2_tiny"
MAKE_KEY = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out"
PUBLISH = '[publish]\nrepo = "my-lab/{folder}"\n'
TINY = """
[models.tiny]
url = "tiny.pt"
folder = "sam2_tiny"
variants = ["fp32", "fp16"]
license = "Apache-2.0"
origin = "us"
"""
DEPLOYED = {
    *("encoder.onnx", "decoder.onnx", "encoder_fp16.onnx", "decoder_fp16.onnx"),
    "manifest.json",
}


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub(server: FileServer) -> Iterator[WritableHub]:
    made = WritableHub(server)
    yield made
    made.held.set()
    made.close()


class Published:
    """A project with a built model, and a hub."""

    def __init__(self, project: Project, hub: WritableHub) -> None:
        self.project = project
        self.hub = hub
        self.environment = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(project.root / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",  # the hub on loopback speaks the basic transfer
            "CHEAP_IMPATIENT": "1",
        }

    def configure(self, models: str = TINY, publish: str = PUBLISH) -> None:
        self.project.configure(f'[build]\ndeploy = "public"\n{publish}{models}')

    def __call__(self, *arguments: str, **environment: str) -> Outcome:
        arguments = arguments or ("publish:tiny",)
        return self.project.doit(*arguments, **{**self.environment, **environment})

    def run(self, *arguments: str, **environment: str) -> str:
        outcome = self(*arguments, **environment)
        assert outcome.status == 0, outcome.output
        return outcome.output

    def refused(self, *arguments: str, **environment: str) -> str:
        outcome = self(*arguments, **environment)
        assert outcome.status != 0, outcome.output
        assert "Traceback" not in outcome.output
        return " ".join(outcome.output.split())

    @property
    def folder(self) -> Path:
        return self.project.root / "public/sam2_tiny"

    @property
    def remote(self) -> dict[str, bytes]:
        return self.hub.files(REPO)

    @property
    def last(self) -> dict[str, str]:
        """The operation of the last commit on each of its files."""
        return self.hub.commits[-1].paths


@pytest.fixture(scope="module")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("built") / "project", cheap=True)
    project.configure(f'[build]\ndeploy = "public"\n{PUBLISH}{TINY}')
    (project.root / "tiny.pt").write_bytes(b"weights" * 1000)
    outcome = project.build("deploy:tiny")
    assert outcome.status == 0, outcome.output
    return project


@pytest.fixture
def tiny(built_once: Project, hub: WritableHub, tmp_path: Path) -> Published:
    """A deployed model, and a hub without a repository."""
    return Published(built_once.copy_to(tmp_path / "project"), hub)


@pytest.fixture
def published(tiny: Published) -> Published:
    """A deployed and published model."""
    tiny.run()
    return tiny


# --- what is sent ---


def test_a_dry_run_lists_the_files_and_sends_nothing(tiny: Published) -> None:
    output = tiny.run("publish:tiny", "--dry-run", HF_TOKEN="")
    assert f"{tiny.hub.address}/{REPO} would be created, unless it exists as a private" in output
    for name in (*DEPLOYED, "README.md"):
        assert re.search(rf"add +{re.escape(name)} \(", output), name
    assert "nothing was uploaded; 6 files" in output
    assert tiny.hub.repositories == {}
    assert not [each for each in tiny.hub.requests if not each.startswith("GET")]


def test_the_deployed_files_the_manifest_and_a_card_are_sent_in_one_commit(tiny: Published) -> None:
    output = tiny.run()
    size = sum(len(each) for name, each in tiny.remote.items() if name != ".gitattributes")
    assert f"uploaded 6 files, {size:,} bytes: {tiny.hub.address}/{REPO}, commit " in output
    assert len(tiny.hub.commits) == 1
    assert tiny.remote.keys() == {*DEPLOYED, "README.md", ".gitattributes"}
    for name in DEPLOYED:
        assert tiny.remote[name] == (tiny.folder / name).read_bytes()


def test_an_unbuilt_model_is_built_and_deployed_first(project: Project, hub: WritableHub) -> None:
    fresh = Published(project, hub)
    fresh.configure()
    (project.root / "tiny.pt").write_bytes(b"weights")
    fresh.run()
    assert fresh.remote.keys() > DEPLOYED


def test_publishing_again_commits_nothing(published: Published) -> None:
    assert f"nothing to publish: {published.hub.address}/{REPO} has these files" in published.run()
    assert "nothing to publish" in published.run("publish:tiny", "--dry-run")
    assert len(published.hub.commits) == 1


def test_another_checkpoint_sends_the_changed_files(published: Published) -> None:
    uploaded = len(published.hub.uploads)
    (published.project.root / "tiny.pt").write_bytes(b"better")
    published.run()
    assert published.last.keys() == {*DEPLOYED, "README.md"}
    assert published.last["encoder.onnx"] == "lfsFile"
    assert published.last["manifest.json"] == "file"
    assert len(published.hub.uploads) == uploaded + 4


@pytest.mark.slow
def test_another_origin_sends_only_the_manifest_and_the_card(published: Published) -> None:
    uploaded = len(published.hub.uploads)
    published.configure(TINY.replace('"us"', '"them"'))
    output = published.run("publish:tiny", "--dry-run")
    assert re.findall(r"(?:add|change|remove) +(\S+)", output) == ["manifest.json", "README.md"]
    published.run()
    assert published.last == {"manifest.json": "file", "README.md": "file"}
    assert len(published.hub.uploads) == uploaded


@pytest.mark.slow
def test_another_template_sends_only_the_card(published: Published) -> None:
    template = published.project.root / "tasks/templates/card.md"
    template.write_text(template.read_text().replace("## Origin", "## Our origin"))
    assert "uploaded 1 file, " in published.run()
    assert published.last == {"README.md": "file"}


@pytest.mark.slow
def test_files_no_longer_deployed_are_removed_and_files_of_others_stay(
    published: Published,
) -> None:
    published.hub.add(REPO, {"photo.png": b"theirs", "onnx/notes.txt": b"theirs"})
    published.configure(TINY.replace(', "fp16"', ""))
    output = published.run("publish:tiny", "--dry-run")
    assert re.findall(r"remove +(\S+),", output) == ["encoder_fp16.onnx", "decoder_fp16.onnx"]
    assert re.findall(r"keep +(\S+),", output) == [".gitattributes", "photo.png", "onnx/notes.txt"]
    assert ", 2 removed" in published.run()
    assert published.last["encoder_fp16.onnx"] == "deletedFile"
    assert published.remote.keys() >= {"photo.png", "onnx/notes.txt", ".gitattributes"}
    assert "encoder_fp16.onnx" not in published.remote


@pytest.mark.slow
def test_a_file_missing_or_changed_on_the_hub_is_sent_again(published: Published) -> None:
    published.hub.add(REPO, {"decoder.onnx": None, "encoder.onnx": b"exchanged"})
    published.run()
    assert published.last == {"decoder.onnx": "lfsFile", "encoder.onnx": "lfsFile"}


@pytest.mark.slow
def test_a_private_repository_and_a_branch_are_created_on_request(
    tiny: Published,
) -> None:
    tiny.configure(publish=f'{PUBLISH}private = true\nrevision = "trial"\n')
    output = tiny.run("publish:tiny", "--dry-run")
    assert f"{REPO}/tree/trial would be created, private" in output
    tiny.run()
    assert tiny.hub.visibility[REPO] == "private"
    assert tiny.hub.files(REPO, "trial").keys() > DEPLOYED
    assert tiny.remote.keys() == {".gitattributes"}
    assert "nothing to publish" in tiny.run()


@pytest.mark.slow
def test_several_models_are_sent_to_their_own_repositories(tiny: Published) -> None:
    tiny.configure(TINY + TINY.replace("tiny", "other").replace("other.pt", "tiny.pt"))
    tiny.run("-n", "2", "publish:tiny", "publish:other")
    assert set(tiny.hub.repositories) == {REPO, "my-lab/sam2_other"}
    assert tiny.hub.files("my-lab/sam2_other").keys() == tiny.remote.keys()


def test_the_stored_login_is_used_and_the_token_goes_to_no_other_host(
    tiny: Published,
) -> None:
    stored = tiny.project.root / "hf/token"
    stored.parent.mkdir()
    stored.write_text(TOKEN)
    output = tiny.run(HF_TOKEN="")
    assert TOKEN not in output
    assert tiny.hub.sent_to_storage
    assert TOKEN not in str(tiny.hub.sent_to_storage)


# --- a signature ---


def test_a_signature_is_sent_with_its_files_and_removed_with_the_key(tiny: Published) -> None:
    key = tiny.project.root / "key.pem"
    subprocess.run(["openssl", *MAKE_KEY.split(), key], check=True, capture_output=True)
    tiny.configure(publish=f'{PUBLISH}[sign]\nkey = "{key}"\n')
    tiny.run()
    signature = {SIGNATURE, STATEMENT, MATERIALS}
    assert tiny.remote.keys() == {*DEPLOYED, *signature, "README.md", ".gitattributes"}
    for name in signature:
        assert tiny.remote[name] == (tiny.folder / name).read_bytes()
    assert "nothing to publish" in tiny.run()
    (tiny.folder / SIGNATURE).write_text("{}")
    output = tiny.refused("-s", "publish:tiny")
    assert (
        f"is not published, because `doit check` refuses it: - signature: {SIGNATURE} is not"
        in output
    )
    tiny.run()
    tiny.configure()
    tiny.run()
    assert {name for name, verb in tiny.last.items() if verb == "deletedFile"} == signature


# --- the card on the hub ---


@pytest.mark.slow
def test_text_added_below_the_line_of_the_card_is_kept(published: Published) -> None:
    own = "\n## How we use it\n\nOn Mondays.\n"
    published.hub.add(REPO, {"README.md": published.remote["README.md"] + own.encode()})
    assert "nothing to publish" in published.run()
    published.configure(TINY.replace('"us"', '"them"'))
    published.run()
    text = published.remote["README.md"].decode()
    assert "| weights | them |" in text
    assert text.endswith(f"{card.MARK}\n{own}")


@pytest.mark.slow
def test_a_card_written_by_others_is_replaced_and_the_dry_run_warns_of_it(tiny: Published) -> None:
    tiny.hub.make(REPO, {"README.md": b"# Ours\n"})
    output = " ".join(tiny.run("publish:tiny", "--dry-run").split())
    assert f"README.md of {REPO} was not written by `doit publish` and is replaced" in output
    tiny.run()
    assert b"# Ours" not in tiny.remote["README.md"]


@pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
def test_the_card_shows_how_the_client_loads_the_files_from_the_repository(
    client: Client, tiny: Published
) -> None:
    model = TINY.replace('"Apache-2.0"', '"Our Licence 1.0"')
    kinds = {"sam": "vit_b", "sam2": "auto", "sam2, one map": "efficienttam_s"}
    model += f'model_type = "{kinds[client.layout]}"\n'
    tiny.configure(model + f'client = "{client.name}"\n')
    tiny.run()
    _, head, text = tiny.remote["README.md"].decode().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "other",
        "license_name": "our-licence-1.0",
        "library_name": client.library,
        "pipeline_tag": "mask-generation",
        "tags": [
            client.layout.partition(",")[0],
            "segment-anything",
            "onnx",
            "onnxruntime",
            "onnxruntime-web",
        ],
    }
    loading = text.split("## Loading\n")[1].split("For other programs")[0]
    assert REPO in loading
    assert "Our Licence 1.0" in text
    files = json.loads((tiny.folder / "manifest.json").read_text())["files"]
    assert all(f"`{each}`" in text for each in files if each.endswith(".onnx"))
    assert "| variant | files | size | onnxruntime, from | natively, tried in |" in text
    assert " MiB | 1.17 | onnxruntime 1.17.0, " in text
    assert ", 1.32.0; openvino 2026.4.1 |" in text


def test_the_card_of_edgetam_names_edgetam(tiny: Published) -> None:
    manifest = read_manifest(tiny.folder / "manifest.json")
    assert manifest is not None
    for kind, words in (("edgetam", "EdgeTAM in ONNX"), ("sam2_hiera_tiny", "SAM 2 in ONNX")):
        text = card.card(replace(manifest, model_type=kind), "a/b", "b", "https://huggingface.co")
        assert f"\n{words}: a click" in text


def test_a_checkpoint_from_the_hub_is_the_base_model_and_table_cells_are_escaped() -> None:
    assert card.base_model("hf:facebook/sam2-hiera-tiny@main/model.safetensors") == (
        "facebook/sam2-hiera-tiny"
    )
    assert card.base_model("https://huggingface.co/a/b") is None
    assert card.cell("a|b\n<c>") == r"a\|b &lt;c>"


def test_the_card_shows_the_proof_on_each_provider() -> None:
    proofs = {"webgpu": ProviderProof(True, software=True, parts=("decoder",))}
    tried = manifests.variant(
        browser=BrowserProof("Chromium 1", "onnxruntime-web 1", RULES, proofs)
    )
    assert card.in_browser(tried, "webgpu") == "decoder proven, in software"
    assert card.in_browser(tried, "wasm") == "not run"
    assert card.in_browser(manifests.variant(), "wasm") == "not run"
    proofs["wasm"] = ProviderProof(False, "a mask | differs")
    assert card.in_browser(tried, "wasm") == r"not proven: a mask \| differs"


# --- refusals ---


@pytest.mark.parametrize(
    ("models", "publish", "words"),
    [
        (TINY, "", 'Add there: [publish] repo = "my-lab/{folder}"'),
        (TINY.replace('license = "Apache-2.0"', ""), PUBLISH, "[models.tiny] sets no licence"),
        (
            TINY.replace("tiny.pt", "synthetic:") + 'model_type = "sam2_hiera_tiny"\n',
            PUBLISH,
            "[models.tiny] has random weights (synthetic:)",
        ),
    ],
)
def test_a_model_that_may_not_be_published_is_refused_before_anything_is_built(
    project: Project, hub: WritableHub, models: str, publish: str, words: str
) -> None:
    fresh = Published(project, hub)
    fresh.configure(models, publish)
    assert words in fresh.refused()
    assert not (project.root / "build/models").exists()
    assert hub.requests == []


def alter(project: Project, what: str) -> None:
    """Change something between a deploy and `doit -s publish:tiny`."""
    folder = project.root / "public/sam2_tiny"
    manifest = folder / "manifest.json"
    configuration = project.root / "config/models.toml"
    if what == "a file":
        (folder / "encoder.onnx").write_bytes(b"another")
    elif what == "a missing file":
        (folder / "encoder.onnx").unlink()
    elif what == "a file and its manifest":
        content = b"another"
        (folder / "encoder.onnx").write_bytes(content)
        listed = json.loads(manifest.read_text())
        listed["files"]["encoder.onnx"] = {
            "size": len(content),
            "sha256": sha256_of(content),
        }
        manifest.write_text(json.dumps(listed, indent=2) + "\n")
    elif what == "the figures of the manifest":
        listed = json.loads(manifest.read_text())
        listed["verification"]["encoder"]["image_embed"] = 1e-9
        manifest.write_text(json.dumps(listed, indent=2) + "\n")
    elif what == "a report":
        report = project.root / "build/models/tiny/verify.json"
        report.write_text(report.read_text().replace('"passed": true', '"passed": false'))
    elif what == "a tolerance":
        configuration.write_text(configuration.read_text() + "[verify]\nmask_tolerance = 1e-5\n")
    elif what == "the licence":
        configuration.write_text(configuration.read_text().replace("Apache-2.0", "MIT"))
    elif what == "the deploy folder":
        shutil.copytree(folder, project.root / "elsewhere/sam2_tiny")
        configuration.write_text(configuration.read_text().replace('"public"', '"elsewhere"'))
    elif what == "the build's records":
        shutil.rmtree(project.root / "build/state")
    elif what == "the built checkpoint":
        (project.root / "build/checkpoints/tiny.pt").write_bytes(b"another")
    elif what == "the file behind url":
        (project.root / "tiny.pt").write_bytes(b"another")
    elif what == "an exported graph":
        (project.root / "build/models/tiny/exported/encoder.onnx").write_bytes(b"another")
    elif what == "the code of a stage":
        source = project.root / "tasks/verify.py"
        source.write_text(source.read_text() + "\nANOTHER = True\n")
    elif what == "a package":
        project.pretend_installed("numpy", "99.0")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a file", "public/sam2_tiny/encoder.onnx differs from"),
        ("a missing file", "public/sam2_tiny/encoder.onnx differs from"),
        ("a file and its manifest", "public/sam2_tiny/manifest.json was edited"),
        ("the figures of the manifest", "public/sam2_tiny/manifest.json was edited"),
        ("a report", "build/models/tiny/verify.json changed"),
        ("a tolerance", "masks was 0.001, is 1e-05"),
        ("the licence", "config/models.toml: license was Apache-2.0, is MIT"),
        ("the deploy folder", "elsewhere/sam2_tiny/manifest.json is new"),
        ("the build's records", "never built"),
        ("the built checkpoint", "checkpoint:tiny: build/checkpoints/tiny.pt was edited"),
        ("the file behind url", "checkpoint:tiny: tiny.pt changed"),
        ("an exported graph", "export:tiny: build/models/tiny/exported/encoder.onnx was edited"),
        ("the code of a stage", "verify:tiny: tasks/verify.py changed"),
        ("a package", "verify:tiny: numpy was"),
    ],
)
def test_files_that_differ_from_the_proven_and_deployed_state_are_not_published(
    tiny: Published, what: str, words: str
) -> None:
    alter(tiny.project, what)
    message = tiny.refused("-s", "publish:tiny")
    assert "is not published, because it changed since it was proven and deployed" in message
    assert words in message
    assert "`doit publish:tiny` without -s" in message
    assert tiny.hub.requests == []


RULES = BrowserRules(0.999, 1e-3, 1e-2, 1e-3)
PROVEN = manifests.manifest(
    variants=(
        manifests.variant("fp32"),
        manifests.variant("q8", fidelity=manifests.FIDELITY),
        manifests.variant("q4", deployed=False, reason="too far"),
    )
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"model": "small"}, "is for small, not for tiny"),
        ({"license": None}, "has no licence"),
        (
            {"checkpoint": Checkpoint("synthetic:", "0" * 64, 1, synthetic=True)},
            "has random weights",
        ),
        ({"verification": None}, "shows no comparison of fp32 with PyTorch"),
        (
            {"variants": (manifests.variant("q8"),)},
            "shows no comparison of q8 with PyTorch",
        ),
    ],
)
@pytest.mark.parametrize("in_browser", ["auto", True])
def test_the_manifest_must_have_a_proof_of_every_deployed_variant(
    change: dict[str, Any], words: str | None, in_browser: Any
) -> None:
    location = CheckpointLocation("file", "x.pt")
    source = Source("tiny", Path("build"), location, Checks())
    client = CLIENTS[DEFAULT_CLIENT]
    model = Target("tiny", source, client, Path("x"), browser=in_browser)
    found = unproven(model, replace(PROVEN, **change))
    if words is None and in_browser is True:
        words = "shows no run of fp32 in a browser, which [models.tiny] requires"
    assert found == words if words is None else words in (found or "")


def test_without_s_a_replaced_file_is_deployed_again_and_published(tiny: Published) -> None:
    before = (tiny.folder / "encoder.onnx").read_bytes()
    alter(tiny.project, "a file and its manifest")
    tiny.run()
    assert tiny.remote["encoder.onnx"] == before


def test_a_model_that_fails_its_proof_is_not_published(tiny: Published) -> None:
    (tiny.project.root / "tiny.pt").write_bytes(b"better")
    assert "verify:tiny" in tiny.refused(CHEAP_DIFFERENCE="1")
    assert tiny.hub.requests == []


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", f"No token to write to {REPO}. Run `hf auth login`"),
        (READS_ONLY, "you must use a write token to do this"),
        ("hf_unknown", "Invalid credentials in Authorization header"),
    ],
)
def test_without_a_write_token_the_error_explains_how_to_get_one(
    tiny: Published, token: str, words: str
) -> None:
    message = tiny.refused(HF_TOKEN=token)
    assert words in message
    assert "HF_TOKEN" in message or "https://huggingface.co/settings/tokens" in message
    assert tiny.hub.repositories == {}


# --- failures while sending ---


@pytest.mark.slow
def test_a_concurrent_commit_is_not_overwritten(published: Published) -> None:
    def commit() -> None:
        published.hub.meanwhile = lambda: None
        published.hub.add(REPO, {"encoder.onnx": b"of another"})

    published.configure(TINY.replace('"us"', '"them"'))
    published.hub.meanwhile = commit
    message = published.refused()
    assert f"Somebody else changed {REPO} during this publishing" in message
    assert published.remote["encoder.onnx"] == b"of another"
    assert len(published.hub.commits) == 1
    published.run()
    assert published.last.keys() == {"encoder.onnx", "manifest.json", "README.md"}


@pytest.mark.slow
def test_an_interrupted_upload_makes_no_commit_and_the_next_run_sends_the_rest(
    tiny: Published,
) -> None:
    sha256 = sha256_of((tiny.folder / "decoder.onnx").read_bytes())
    tiny.hub.faults[f"PUT /storage/{sha256}"] = None
    message = tiny.refused()
    assert "cannot be reached, or the connection broke" in message
    assert "Nothing was published." in message
    assert tiny.hub.commits == []
    tiny.hub.faults.clear()
    uploaded = list(tiny.hub.uploads)
    assert uploaded
    tiny.run()
    assert tiny.remote.keys() > DEPLOYED
    assert sorted(tiny.hub.uploads) == sorted({*tiny.hub.uploads})  # none was sent twice


def test_an_interruption_at_the_commit_is_reported_as_an_unknown_outcome(tiny: Published) -> None:
    tiny.hub.faults[f"POST /api/models/{REPO}/commit"] = None
    assert "The commit might have arrived or not" in tiny.refused()
    tiny.hub.faults.clear()
    tiny.run()
    assert len(tiny.hub.commits) == 1


def test_a_publish_killed_during_an_upload_leaves_no_commit(tiny: Published) -> None:
    tiny.hub.held.clear()
    tiny.project.environment |= tiny.environment
    process = tiny.project.start("publish:tiny")
    assert tiny.hub.reached.wait(60)
    process.kill()
    process.communicate()
    tiny.hub.held.set()
    assert tiny.hub.commits == []
    assert tiny.remote.keys() == {".gitattributes"}
    tiny.run()
    assert tiny.remote.keys() > DEPLOYED


QUOTA = "Private repository storage limit reached, please upgrade your plan"


@pytest.mark.parametrize(
    ("request_", "answer", "words"),
    [
        (f"POST /{REPO}.git", error_answer(403, QUOTA, **{"X-Error-Message": QUOTA}), QUOTA),
        ("GET /api/models/", error_answer(500, "out of order"), "The hub answers 500"),
        ("GET /api/models/", Answer(200, {}, b"<html>"), "does not answer like a hub"),
        ("POST /api/repos", error_answer(429, "slow down"), "The hub requests a wait"),
        (
            f"POST /{REPO}.git",
            Answer(
                200,
                {"Content-Type": "application/json"},
                json.dumps(
                    {
                        "objects": [
                            {"oid": "1", "size": 1, "error": {"code": 507, "message": "no space"}}
                        ]
                    }
                ).encode(),
            ),
            "no space",
        ),
    ],
)
def test_errors_of_the_hub_are_shown_in_its_words(
    tiny: Published, request_: str, answer: Answer, words: str
) -> None:
    tiny.hub.faults[request_] = answer
    assert words in tiny.refused()
    assert tiny.hub.commits == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "http://127.0.0.1:9 cannot be reached"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE keeps huggingface_hub offline"),
    ],
)
def test_an_unreachable_hub_is_reported(
    tiny: Published, environment: dict[str, str], words: str
) -> None:
    assert words in tiny.refused(**environment)


def test_a_hub_without_xet_transfer_is_reported_in_a_sentence(tiny: Published) -> None:
    message = tiny.refused(HF_HUB_DISABLE_XET="0")
    assert f"{tiny.hub.address} cannot be reached, or the connection broke" in message
    assert "xet-write-token" in message
    assert tiny.hub.commits == []


def test_a_file_excluded_by_a_gitignore_on_the_hub_is_an_error(
    tiny: Published,
) -> None:
    tiny.hub.make(REPO, {".gitignore": b"*.onnx\n"})
    assert f"{REPO} has a .gitignore that excludes encoder.onnx" in tiny.refused()
    assert tiny.hub.commits == []


# --- which files change ---


def test_files_are_compared_by_the_hashes_of_the_hub() -> None:
    remote = {
        "large": RemoteFile(1, "sha", "pointer"),
        "small": RemoteFile(1, None, "blob"),
        "old": RemoteFile(1, None, "x"),
        "photo": RemoteFile(1, None, "y"),
    }
    local = {"large": "other", "small": "blob", "new": "z"}
    assert compare(local, remote, {"old", "small"}) == Plan(
        added=["new"], changed=["large"], removed=["old"], same=["small"], foreign=["photo"]
    )


@pytest.mark.parametrize(
    ("manifest", "names"),
    [
        ('{"files": {"encoder.onnx": {}, "onnx/decoder.onnx": {}}}', None),
        (
            '{"files": {"encoder.onnx": {}, "onnx/decoder.onnx": {}, "../up": {}, ".git/x": {}}}',
            None,
        ),
        ("<html>", set()),
        ("[]", set()),
        ("", set()),
    ],
)
def test_only_a_manifest_names_the_files_of_an_earlier_publish(
    manifest: str, names: set[str] | None
) -> None:
    expected = {"encoder.onnx", "onnx/decoder.onnx"} if names is None else names
    assert published_names(manifest, "") == expected


def test_a_picture_counts_as_published_if_the_generated_part_of_the_card_shows_it() -> None:
    shown = "![masks](demo.png)\n"
    assert published_names("", f"{shown}{card.MARK}\n") == {"demo.png"}
    assert published_names("", f"{card.MARK}\n{shown}") == set()  # added by a person
    assert published_names("", shown) == set()


def test_status_does_not_list_publish_as_missing(published: Published) -> None:
    assert "publish" not in published.run("status", "tiny")
    assert "Runs only when you name it, and then always" in published.run("info", "publish:tiny")


# --- the demo ---

DEMO = """
[build]
deploy = "build/demo"
[browser]
enabled = false
[publish]
repo = "my-lab/{folder}"
[models.demo]
config = "demo/sam2_demo.yaml"
url = "demo/sam2_demo.pt"
truth = "tasks.drawing.scenes:scene"
folder = "sam2_demo"
client = "transformers.js"
license = "Apache-2.0"
"""


@pytest.mark.slow
def test_the_demo_is_published_with_its_picture_and_runs_from_the_hub_as_the_card_shows(
    npm_packages: None, hub: WritableHub, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", cheap=False)
    project.configure(DEMO)
    demo = Published(project, hub)
    demo.run("demo")
    demo.run("publish:demo")
    name, folder = "my-lab/sam2_demo", project.root / "build/demo/sam2_demo"
    remote = hub.files(name)
    assert remote["demo.png"] == (project.root / "build/demo/demo.png").read_bytes()
    listed = json.loads(remote["manifest.json"])["files"]

    # By huggingface_hub's own command, as a person would get it.
    command = Path(sys.executable).with_name("hf")
    subprocess.run(
        [command, "download", name, "--local-dir", tmp_path / "back"],
        env={**project.environment, **demo.environment},
        check=True,
        capture_output=True,
    )
    for file in (*listed, "manifest.json"):
        assert (tmp_path / "back" / file).read_bytes() == (folder / file).read_bytes()

    # By transformers.js, with the card's own lines.
    modules = packages.RUNTIME.parent
    if not (modules / "@huggingface/transformers").exists():
        give_up("needs @huggingface/transformers")
    (code,) = re.findall(r"```js\n(.*?)```", remote["README.md"].decode(), re.DOTALL)
    code = code.replace('"image.png"', json.dumps(str(ROOT / "docs/coins.jpg")))
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "program.mjs").write_text(
        'import { env } from "@huggingface/transformers";\n'
        f'env.remoteHost = "{hub.address}/";\nenv.cacheDir = "./cache";\n{code}\n'
        "console.log(masks[0].dims.join());\n"
    )
    done = subprocess.run(
        ["node", "program.mjs"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1].startswith("3,")

    # A picture of other files is removed.
    project.configure(DEMO.replace("Apache-2.0", "MIT"))
    output = demo.run("publish:demo")
    assert "`doit demo` redraws it" in output
    assert "demo.png" not in hub.files(name)


def test_the_hub_on_loopback_creates_a_repository_as_the_real_hub_does(hub: WritableHub) -> None:
    hub.make("a/b")
    assert hub.files("a/b") == {".gitattributes": ATTRIBUTES}

"""Checkpoints from the Hugging Face hub and local folders, through real builds and real HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, Repository
from project import Outcome, Project
from proxy import Proxy
from server import Fault, FileServer

from tasks.config.location import WEIGHTS

FIRST, SECOND = bytes(range(256)) * 8192, bytes(range(255, -1, -1)) * 8192
CONFIG = json.dumps({"model_type": "sam2_video"}).encode()
A, B = "a" * 40, "b" * 40


@pytest.fixture
def hub(server: FileServer) -> Iterator[Hub]:
    made = Hub(server)
    made.repositories["me/cells"] = Repository(
        {A: {WEIGHTS: FIRST, "config.json": CONFIG}, B: {WEIGHTS: SECOND, "config.json": CONFIG}},
        {"main": A, "v2": B},
    )
    yield made
    made.close()


class Build:
    def __init__(self, project: Project, hub: Hub) -> None:
        self.project = project
        self.hub = hub
        self.environment = {
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(project.root / "hf"),
            "HF_TOKEN": "",
            "HF_HUB_OFFLINE": "",
        }

    def configure(self, url: str, more: str = "") -> None:
        self.project.configure(
            f'[models.mine]\nmodel_type = "sam2_hiera_tiny"\nurl = "{url}"\n{more}'
        )

    def obtain(self, url: str, more: str = "", **environment: str) -> Outcome:
        self.configure(url, more)
        return self.project.build("checkpoint:mine", **{**self.environment, **environment})

    @property
    def checkpoint(self) -> bytes:
        return (self.project.root / "build/checkpoints/mine.pt").read_bytes()

    @property
    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.project.root / "build/checkpoints/mine.json").read_text()
        )
        return found


@pytest.fixture
def build(project: Project, hub: Hub) -> Build:
    return Build(project, hub)


def refused(outcome: Outcome) -> str:
    assert outcome.status != 0
    assert "Traceback" not in outcome.output
    return outcome.output


def test_a_hub_checkpoint_is_downloaded_once_and_recorded_with_its_commit(
    build: Build,
) -> None:
    assert build.obtain("hf:me/cells").status == 0
    assert build.checkpoint == FIRST
    assert (build.record["url"], build.record["commit"]) == ("hf:me/cells", A)
    before = len(build.hub.requests)
    assert build.obtain("hf:me/cells").ran == set()
    assert len(build.hub.requests) == before


def test_the_url_selects_the_revision_and_the_file(build: Build) -> None:
    build.hub.repositories["me/cells"].commits[B]["run/best.pt"] = FIRST
    assert build.obtain("hf:me/cells@v2").status == 0
    assert build.checkpoint == SECOND
    assert build.obtain("hf:me/cells@v2/run/best.pt").status == 0
    assert build.checkpoint == FIRST


def test_an_interrupted_download_is_resumed(build: Build, server: FileServer) -> None:
    server.faults.append(Fault(drop_after=1 << 20))
    assert build.obtain("hf:me/cells").status == 0
    assert build.checkpoint == FIRST
    first, second = server.ranges()
    assert first is None
    assert second is not None


def test_a_branch_that_moved_between_two_attempts_never_mixes_two_commits(
    build: Build, server: FileServer
) -> None:
    server.faults += [Fault(drop_after=1 << 20), Fault(status=403)]
    refused(build.obtain("hf:me/cells"))
    build.hub.repositories["me/cells"].branches["main"] = B
    assert build.obtain("hf:me/cells").status == 0
    assert build.checkpoint == SECOND
    assert build.record["commit"] == B


def test_a_pinned_hash_is_compared_with_the_hubs_before_the_download(
    build: Build, server: FileServer
) -> None:
    message = refused(build.obtain("hf:me/cells", f'sha256 = "{"0" * 64}"\n'))
    assert "sha256 expects 000" in message
    assert f"at commit {A}" in message
    assert not server.requests


def test_a_download_is_checked_against_the_hubs_own_hash(build: Build, server: FileServer) -> None:
    server.faults.append(Fault(body=SECOND))
    message = refused(build.obtain("hf:me/cells"))
    assert "is not the expected file" in message
    assert not (build.project.root / "build/checkpoints/mine.pt").exists()


def test_a_token_is_sent_only_to_the_hub(build: Build, server: FileServer) -> None:
    build.hub.repositories["me/cells"].token = "hf_secret"
    assert build.obtain("hf:me/cells", HF_TOKEN="hf_secret").status == 0
    assert build.checkpoint == FIRST
    for _, headers in server.requests:
        assert "hf_secret" not in str(headers)
    files = [each for each in (build.project.root / "build").rglob("*") if each.is_file()]
    assert not any(b"hf_secret" in each.read_bytes() for each in files)


def test_a_stored_hub_login_is_used(build: Build) -> None:
    build.hub.repositories["me/cells"].token = "hf_stored"
    stored = build.project.root / "hf/token"
    stored.parent.mkdir()
    stored.write_text("hf_stored")
    assert build.obtain("hf:me/cells").status == 0


@pytest.mark.parametrize("gated", [False, True])
def test_a_repository_that_needs_a_login_is_an_error_with_instructions(
    build: Build, gated: bool
) -> None:
    repository = build.hub.repositories["me/cells"]
    repository.token, repository.gated = "hf_secret", gated
    message = refused(build.obtain("hf:me/cells"))
    assert "[models.mine] url: hf:me/cells" in message
    assert "run `hf auth login`, or set HF_TOKEN" in message
    if gated:
        with_other = refused(build.obtain("hf:me/cells", HF_TOKEN="hf_other"))
        assert "request access at https://huggingface.co/me/cells" in with_other


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("hf:me/none", "does not exist, or needs a login"),
        ("hf:me/cells@v9", "has no revision 'v9'"),
        ("hf:me/cells/none.pt", "has no none.pt at main"),
    ],
)
def test_a_missing_repository_revision_or_file_is_named(
    build: Build, url: str, expected: str
) -> None:
    assert expected in refused(build.obtain(url))


def test_another_kind_of_model_is_refused_before_its_weights_are_downloaded(
    build: Build, server: FileServer
) -> None:
    other = json.dumps({"model_type": "sam"}).encode()
    build.hub.repositories["me/cells"].commits[A]["config.json"] = other
    message = refused(build.obtain("hf:me/cells"))
    assert (
        "config.json of hf:me/cells describes another kind of model: its model_type is 'sam'"
        in message
    )
    assert not server.requests


def test_config_json_applies_only_to_the_default_weights_file(
    build: Build,
) -> None:
    commit = build.hub.repositories["me/cells"].commits[A]
    commit["config.json"] = json.dumps({"model_type": "vit"}).encode()
    commit["sam2_tiny.pt"] = SECOND
    assert build.obtain("hf:me/cells/sam2_tiny.pt").status == 0
    assert build.checkpoint == SECOND
    assert "its model_type is 'vit'" in refused(build.obtain(f"hf:me/cells/{WEIGHTS}"))


def test_an_unreachable_hub_is_named_and_the_cached_copy_is_suggested(
    build: Build,
) -> None:
    copy = in_cache(build)
    message = refused(build.obtain("hf:me/cells", HF_ENDPOINT="http://127.0.0.1:9"))
    assert "http://127.0.0.1:9 cannot be reached" in message
    assert "HF_ENDPOINT" in message
    assert f"HF_HUB_OFFLINE=1 uses the file in huggingface_hub's cache: {copy}" in message


def test_a_pull_request_is_a_revision_like_any_other(build: Build) -> None:
    build.hub.repositories["me/cells"].branches["refs/pr/1"] = B
    assert build.obtain("hf:me/cells@refs/pr/1").status == 0
    assert build.checkpoint == SECOND
    assert build.record["commit"] == B


def test_metadata_and_file_come_through_the_same_proxy(build: Build, server: FileServer) -> None:
    proxy = Proxy()
    hub = build.hub.address.removeprefix("http://127.0.0.1")
    outcome = build.obtain(
        "hf:me/cells", HF_ENDPOINT=f"http://hub.invalid{hub}", ALL_PROXY=proxy.url("socks5h")
    )
    proxy.close()
    assert outcome.status == 0, outcome.output
    assert build.checkpoint == FIRST
    storage = server.url("").removeprefix("http://127.0.0.1")
    assert {f"hub.invalid{hub}", f"localhost{storage}"} == set(proxy.targets)


# --- huggingface_hub's own cache ---


def in_cache(build: Build, weights: bytes = FIRST, named: bytes = FIRST) -> Path:
    """Put a repository at its first commit into huggingface_hub's cache, in its layout.

    :param named: the content whose hash names the copy of the weights.
    """
    folder = build.project.root / "hf/hub/models--me--cells"
    for each in ("refs", "blobs", f"snapshots/{A}"):
        (folder / each).mkdir(parents=True)
    (folder / "refs/main").write_text(A)
    for name, content, etag in (
        (WEIGHTS, weights, hashlib.sha256(named).hexdigest()),
        ("config.json", CONFIG, "c" * 40),
    ):
        (folder / "blobs" / etag).write_bytes(content)
        (folder / "snapshots" / A / name).symlink_to(f"../../blobs/{etag}")
    return folder


def test_a_file_cached_by_huggingface_hub_is_copied_and_not_downloaded(
    build: Build, server: FileServer
) -> None:
    in_cache(build)
    assert build.obtain("hf:me/cells").status == 0
    assert build.checkpoint == FIRST
    assert build.record["commit"] == A
    assert not server.requests


def test_a_cached_file_of_another_commit_with_the_same_hash_is_copied_too(
    build: Build, server: FileServer
) -> None:
    in_cache(build)
    repository = build.hub.repositories["me/cells"]
    repository.commits[B][WEIGHTS], repository.branches["main"] = FIRST, B
    assert build.obtain("hf:me/cells").status == 0
    assert (build.checkpoint, build.record["commit"]) == (FIRST, B)
    assert not server.requests


def test_a_damaged_cached_file_is_a_warning_and_is_downloaded(
    build: Build, server: FileServer
) -> None:
    in_cache(build, weights=SECOND)
    build.configure("hf:me/cells")
    outcome = build.project.doit("run", "checkpoint:mine", **build.environment)
    assert outcome.status == 0, outcome.output
    assert "is not the expected checkpoint" in outcome.output
    assert build.checkpoint == FIRST
    assert len(server.requests) == 1


OFFLINE = {"HF_HUB_OFFLINE": "1"}


def test_offline_a_cached_file_is_used_without_contacting_the_hub(build: Build) -> None:
    in_cache(build)
    outcome = build.obtain("hf:me/cells", **OFFLINE)
    assert outcome.status == 0, outcome.output
    assert (build.checkpoint, build.record["commit"]) == (FIRST, A)
    assert not build.hub.requests


def test_offline_a_missing_file_is_refused_with_the_download_command(build: Build) -> None:
    message = refused(build.obtain("hf:me/cells@v2", **OFFLINE))
    assert "HF_HUB_OFFLINE is set" in message
    assert "`hf download me/cells model.safetensors --revision v2`" in message
    assert not build.hub.requests


def test_offline_a_damaged_file_is_refused_with_both_hashes(build: Build) -> None:
    in_cache(build, weights=SECOND)
    message = refused(build.obtain("hf:me/cells", **OFFLINE))
    assert hashlib.sha256(FIRST).hexdigest() in message
    assert hashlib.sha256(SECOND).hexdigest() in message


# --- a local folder, as transformers writes it ---


def folder(build: Build, **files: bytes) -> Path:
    made = build.project.root / "mine"
    made.mkdir()
    for name, content in files.items():
        (made / name.replace("_dot_", ".")).write_bytes(content)
    return made


def test_a_save_pretrained_folder_is_accepted_and_read_again_when_it_changes(
    build: Build,
) -> None:
    made = folder(build, model_dot_safetensors=FIRST, config_dot_json=CONFIG)
    assert build.obtain("mine").status == 0
    assert build.checkpoint == FIRST
    assert build.obtain("mine").ran == set()
    (made / WEIGHTS).write_bytes(SECOND)
    assert build.obtain("mine").ran == {"checkpoint:mine"}
    assert build.checkpoint == SECOND


def test_config_json_beside_a_named_local_file_is_ignored(build: Build) -> None:
    folder(build, best_dot_pt=SECOND, config_dot_json=b'{"model_type": "vit"}')
    assert build.obtain("mine/best.pt").status == 0
    assert build.checkpoint == SECOND


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config_dot_json": CONFIG}, "expected a checkpoint, or a folder that save_pretrained()"),
        ({"adapter_config_dot_json": b"{}"}, "it holds a LoRA adapter: merge it"),
        ({"model_dot_safetensors_dot_index_dot_json": b"{}"}, "its weights are in several files"),
        (
            {"model_dot_safetensors": FIRST, "config_dot_json": b'{"model_type": "vit"}'},
            "mine/config.json describes another kind of model: its model_type is 'vit'",
        ),
        ({"model_dot_safetensors": FIRST, "config_dot_json": b"{"}, "mine/config.json is not JSON"),
        (
            {"model_dot_safetensors": FIRST, "config_dot_json": b"\xff\xfe{"},
            "mine/config.json is not JSON",
        ),
        (
            {
                "model_dot_safetensors": FIRST,
                "config_dot_json": b'{"model_type": "sam2", "prompt_encoder_config": '
                b'{"image_size": 512}}',
            },
            "Put `image_size = 512` there",
        ),
        (
            {
                "model_dot_safetensors": FIRST,
                "config_dot_json": b'{"model_type": "sam2", "prompt_encoder_config": '
                b'{"image_size": [768, 768]}}',
            },
            "Put `image_size = 768` there",
        ),
    ],
)
def test_a_folder_without_usable_weights_is_refused(
    build: Build, files: dict[str, bytes], expected: str
) -> None:
    folder(build, **files)
    assert expected in refused(build.obtain("mine"))

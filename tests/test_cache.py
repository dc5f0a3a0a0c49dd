"""The shared cache, through real builds: the work that it saves, and faults that it survives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from project import ROOT, Outcome, Project
from server import FileServer

from tasks.config.parse import parse
from tasks.config.schema import ConfigurationError
from tasks.console.progress import SILENT
from tasks.remote import shared_cache, storage
from tasks.remote.cache_settings import CacheSettings
from tasks.remote.shared_cache import key_of, parse_entry
from tasks.remote.storage import Broken

NOTHING_COMPUTED = {"CHEAP_FAIL": "write_graphs simplify_graphs convert"}


class Clone:
    """A clone of the project with its own build folder, which builds with the cache."""

    def __init__(self, root: Path, cache: str) -> None:
        self.project = Project(root, cheap=True)
        self.cache = cache
        self.model()

    def model(self, name: str = "tiny", more: str = "", cache: str = "") -> None:
        self.project.configure(
            '[build]\ndir = "out"\ndeploy = "public"\n[browser]\nenabled = false\n'
            f'[cache]\nurl = "{self.cache}"\n{cache}\n'
            f'[models.{name}]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n{more}\n'
        )

    def build(self, *arguments: str, **environment: str) -> Outcome:
        return self.project.build(*arguments, **environment)

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """A build with the output that a user sees."""
        return self.project.doit("run", *arguments, **environment)

    def graph(self, name: str = "encoder.onnx", model: str = "tiny") -> bytes:
        return (self.project.root / "out/models" / model / name).read_bytes()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone that has built its model and filled a cache."""
    folder = tmp_path_factory.mktemp("first")
    made = Clone(folder / "project", str(folder / "cache"))
    succeeded(made.build("deploy:tiny"))
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The folder of a test's cache; empty unless the test uses the second clone."""
    return tmp_path / "cache"


@pytest.fixture
def second(tmp_path: Path, first: Clone, cache: Path) -> Clone:
    """A fresh clone with a copy of the cache that the first clone filled."""
    shutil.copytree(first.cache, cache)
    return Clone(tmp_path / "second/project", str(cache))


def succeeded(outcome: Outcome) -> Outcome:
    assert outcome.status == 0, outcome.output
    return outcome


def failed(outcome: Outcome) -> str:
    assert outcome.status != 0, outcome.output
    return " ".join(outcome.output.split())


def entries(cache: Path, stage: str) -> list[Path]:
    return sorted((cache / "v1/entries" / stage).glob("*.json"))


def files(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "v1/files").rglob("*") if path.is_file())


def poison(cache: Path, stage: str, content: bytes) -> None:
    """Make the entries of a stage name another file, with the right hash and size."""
    sha256 = hashlib.sha256(content).hexdigest()
    place = cache / "v1/files" / sha256[:2] / sha256
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(content)
    for path in entries(cache, stage):
        entry = json.loads(path.read_text())
        entry["outputs"] = [{"sha256": sha256, "size": len(content)} for _ in entry["outputs"]]
        path.write_text(json.dumps(entry))


# --- reuse -------------------------------------------------------------------------------------


def test_a_second_clone_builds_without_computing_a_graph(first: Clone, second: Clone) -> None:
    outcome = succeeded(second.build("deploy:tiny", **NOTHING_COMPUTED))
    assert {"export:tiny", "simplify:tiny", "deploy:tiny"} <= outcome.ran
    assert second.graph() == first.graph()


def test_stages_restored_from_the_cache_are_up_to_date(second: Clone) -> None:
    succeeded(second.build("deploy:tiny"))
    assert second.build("deploy:tiny").ran == set()


def test_a_model_under_another_name_reuses_the_cached_stages(second: Clone) -> None:
    second.model("mine")
    succeeded(second.build("deploy:mine", **NOTHING_COMPUTED))


def test_the_project_and_build_folders_do_not_affect_the_cache_key(
    second: Clone, tmp_path: Path, cache: Path
) -> None:
    other = Clone(tmp_path / "deep/er/project", str(cache))
    text = (other.project.root / "config/models.toml").read_text()
    other.project.configure(text.replace('"out"', f'"{tmp_path / "elsewhere"}"'))
    succeeded(other.build("deploy:tiny"))
    assert len(entries(cache, "export")) == len(entries(cache, "verify")) == 1


def test_another_option_gets_its_own_entry(second: Clone, cache: Path) -> None:
    second.model(more="opset = 18")
    succeeded(second.build("export:tiny"))
    assert len(entries(cache, "export")) == 2


def test_another_package_version_gets_its_own_entry(second: Clone, cache: Path) -> None:
    second.project.pretend_installed("onnxsim", "99")
    succeeded(second.build("simplify:tiny"))
    assert (len(entries(cache, "export")), len(entries(cache, "simplify"))) == (1, 2)


def test_a_changed_source_gets_its_own_entry(second: Clone, cache: Path) -> None:
    module = second.project.root / "tasks/simplify.py"
    module.write_text(module.read_text() + "\nCHANGED = True\n")
    succeeded(second.build("simplify:tiny"))
    assert (len(entries(cache, "export")), len(entries(cache, "simplify"))) == (1, 2)


def test_variants_are_cached_separately(second: Clone) -> None:
    second.model(more='variants = ["fp32", "fp16", "q8"]')
    succeeded(second.build("variant:tiny:fp16", "variant:tiny:q8"))
    assert second.graph("encoder_fp16.onnx") != second.graph("encoder_quantized.onnx")


def test_status_info_and_build_output_name_the_cache_as_the_source(
    second: Clone, cache: Path
) -> None:
    built = second.project.doit("export:tiny")
    assert f"from {cache}: encoder" in built.output
    assert f"from the cache {cache}" in second.project.doit("status", "tiny").output
    info = second.project.doit("info", "export:tiny").output
    assert f"Fresh: nothing changed since it came from the cache {cache}." in info


@pytest.mark.slow
def test_two_builds_that_fill_a_cache_concurrently_leave_it_intact(
    tmp_path: Path, cache: Path
) -> None:
    clones = [Clone(tmp_path / name / "project", str(cache)) for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        for outcome in pool.map(lambda clone: clone.build("deploy:tiny"), clones):
            succeeded(outcome)
    third = Clone(tmp_path / "three/project", str(cache))
    succeeded(third.build("deploy:tiny", **NOTHING_COMPUTED))
    assert not list(cache.rglob("*.part"))


# --- trust -------------------------------------------------------------------------------------


def test_proofs_run_locally_on_files_from_the_cache(second: Clone) -> None:
    assert "measure" in failed(second.build("deploy:tiny", CHEAP_FAIL="measure"))


def test_proofs_come_from_the_cache_with_proofs_true(second: Clone) -> None:
    second.model(cache="proofs = true")
    succeeded(second.build("deploy:tiny", CHEAP_FAIL="measure"))


def test_a_graph_is_shared_between_processors_but_a_proof_is_not(
    second: Clone, cache: Path
) -> None:
    second.model(cache="proofs = true")
    other = {"CHEAP_PROCESSOR": "Linux x86_64 avx512_vnni"}
    assert "measure was told to fail" in failed(
        second.build("deploy:tiny", CHEAP_FAIL="measure write_graphs simplify_graphs", **other)
    )
    succeeded(second.build("deploy:tiny", **other))
    assert len(entries(cache, "verify")) == 2
    assert len(entries(cache, "export")) == 1


def test_a_poisoned_report_is_not_read(second: Clone, cache: Path) -> None:
    poison(cache, "verify", b"{}")
    outcome = succeeded(second.run("deploy:tiny"))
    assert "warning" not in outcome.output


def test_a_failed_proof_is_not_stored(tmp_path: Path, cache: Path) -> None:
    clone = Clone(tmp_path / "first/project", str(cache))
    failed(clone.build("deploy:tiny", CHEAP_DIFFERENCE="1"))
    assert entries(cache, "export")
    assert not entries(cache, "verify")


def test_a_failure_on_cached_files_names_the_cache_and_the_rebuild_command(
    second: Clone, cache: Path
) -> None:
    output = failed(second.build("deploy:tiny", CHEAP_DIFFERENCE="1"))
    assert f"came from the cache {cache} (simplify:tiny)" in output
    assert "`doit -a simplify:tiny` builds them here" in output


def test_a_forced_build_ignores_the_cache_and_replaces_its_entries(
    second: Clone, cache: Path, first: Clone
) -> None:
    poison(cache, "simplify", b"poison")
    succeeded(second.build("-a", "simplify:tiny"))
    assert second.graph() == first.graph()
    replaced = json.loads(entries(cache, "simplify")[0].read_text())
    assert replaced["outputs"][0]["sha256"] == hashlib.sha256(first.graph()).hexdigest()


@pytest.mark.parametrize("arguments", [("-a", "simplify:tiny"), ("simplify:tiny",)])
def test_a_damaged_cached_file_is_replaced_by_a_rebuild(
    second: Clone, cache: Path, first: Clone, arguments: tuple[str, ...]
) -> None:
    """Once by a build that ignores the cache, and once by a build that finds no entry in it."""
    sha256 = hashlib.sha256(first.graph()).hexdigest()
    damaged = cache / "v1/files" / sha256[:2] / sha256
    damaged.write_bytes(bytes(len(first.graph())))
    if "-a" not in arguments:
        for path in entries(cache, "simplify"):
            path.unlink()
    succeeded(second.build(*arguments))
    assert damaged.read_bytes() == first.graph()


def test_an_altered_cached_file_is_a_warning_and_is_rebuilt_and_replaced(
    second: Clone, cache: Path, first: Clone, tmp_path: Path
) -> None:
    sha256 = hashlib.sha256(first.graph()).hexdigest()
    altered = cache / "v1/files" / sha256[:2] / sha256
    altered.write_bytes(bytes(len(altered.read_bytes())))
    outcome = succeeded(second.run("deploy:tiny"))
    assert f"the file {sha256[:12]} is cut off, or was altered; it is built here" in outcome.output
    assert second.graph() == first.graph()
    assert altered.read_bytes() == first.graph()


@pytest.mark.parametrize("content", [b"short", None], ids=["cut off", "gone"])
def test_a_truncated_or_missing_cached_file_is_a_warning(
    second: Clone, cache: Path, first: Clone, content: bytes | None
) -> None:
    for path in files(cache):
        path.unlink() if content is None else path.write_bytes(content)
    outcome = succeeded(second.run("deploy:tiny"))
    assert f"warning: cache {cache}: the file" in outcome.output
    assert second.graph() == first.graph()


@pytest.mark.parametrize("text", ["", "{", '{"outputs": 3}', "[]", "null"])
def test_an_invalid_entry_is_a_warning(second: Clone, cache: Path, text: str) -> None:
    for path in entries(cache, "export"):
        path.write_text(text)
    outcome = succeeded(second.run("deploy:tiny"))
    assert "export: its entry is cut off, or is not an entry; it is built here" in outcome.output


def test_an_entry_stored_under_another_key_is_a_warning(
    second: Clone, cache: Path, first: Clone
) -> None:
    (simplified,), (exported,) = entries(cache, "simplify"), entries(cache, "export")
    exported.write_text(simplified.read_text())
    outcome = succeeded(second.run("deploy:tiny"))
    assert "export: its entry belongs to another key" in outcome.output
    assert second.graph() == first.graph()


def test_a_file_name_that_leaves_the_cache_folder_is_a_warning(second: Clone, cache: Path) -> None:
    (path,) = entries(cache, "export")
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "../../../'))
    outcome = succeeded(second.run("deploy:tiny"))
    assert "names files without a SHA-256" in outcome.output


def test_an_entry_cannot_place_files_that_the_stage_does_not_write(
    second: Clone, cache: Path, first: Clone, tmp_path: Path
) -> None:
    for path in entries(cache, "export") + entries(cache, "simplify"):
        entry = json.loads(path.read_text())
        for output, place in zip(
            entry["outputs"], ("../../../evil", str(tmp_path / "evil")), strict=True
        ):
            output |= dict.fromkeys(("path", "name", "file"), place)
        entry["result"] |= {"outputs": {"evil": "0" * 64}, "files": {"../evil": "0" * 64}}
        path.write_text(json.dumps(entry))
    succeeded(second.build("deploy:tiny", **NOTHING_COMPUTED))
    graphs = {
        str(path.relative_to(second.project.root / "out/models/tiny"))
        for path in (second.project.root / "out/models/tiny").rglob("*")
        if path.suffix != ".json" and path.is_file()
    }
    names = {"encoder.onnx", "decoder.onnx"}
    assert graphs == names | {f"exported/{name}" for name in names}
    assert not list(tmp_path.rglob("*evil*"))
    assert second.build("deploy:tiny").ran == set()


def test_an_entry_with_an_extra_file_is_a_warning(second: Clone, cache: Path, first: Clone) -> None:
    (path,) = entries(cache, "simplify")
    entry = json.loads(path.read_text())
    entry["outputs"].append(entry["outputs"][0])
    path.write_text(json.dumps(entry))
    outcome = succeeded(second.run("simplify:tiny"))
    assert "simplify: its entry has 3 files, expected 2; it is built" in outcome.output
    assert second.graph() == first.graph()


def test_a_symlink_out_of_the_cache_imports_nothing(
    second: Clone, cache: Path, first: Clone, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(len(first.graph())))
    for path in files(cache):
        path.unlink()
        path.symlink_to(secret)
    outcome = succeeded(second.run("deploy:tiny"))
    assert "was altered" in outcome.output
    assert second.graph() == first.graph()


def test_a_stage_whose_source_changed_during_the_run_is_not_stored(
    tmp_path: Path, cache: Path
) -> None:
    clone = Clone(tmp_path / "first/project", str(cache))
    edited = str(clone.project.root / "tasks/export.py")
    succeeded(clone.build("export:tiny", CHEAP_EDIT=edited))
    assert not entries(cache, "export")


def test_control_characters_are_removed_from_the_text_of_an_entry() -> None:
    text = json.dumps(
        {"key": "k", "outputs": [], "result": {"summary": "\x1b[2Jfine\x07"}, "stored": ""}
    )
    assert parse_entry(text.encode(), "k").result == {"summary": "[2Jfine"}


@pytest.mark.parametrize("result", [{"summary": ["x"]}, {"note": {}}, {"peak_memory": "much"}])
def test_an_entry_with_wrongly_typed_results_is_invalid(result: dict[str, object]) -> None:
    text = json.dumps({"key": "k", "outputs": [], "result": result, "stored": ""})
    with pytest.raises(Broken, match="has an invalid"):
        parse_entry(text.encode(), "k")


def test_an_entry_with_the_wrong_number_of_files_is_invalid() -> None:
    text = json.dumps({"key": "k", "outputs": [], "result": {}, "stored": ""})
    with pytest.raises(Broken, match="has 0 files, expected 2"):
        parse_entry(text.encode(), "k", 2)


# --- checkpoints -------------------------------------------------------------------------------

WEIGHTS = bytes(range(256)) * 4096
PIN = hashlib.sha256(WEIGHTS).hexdigest()


def from_address(clone: Clone, server: FileServer, pin: str | None) -> None:
    server.files["/tiny.pt"] = WEIGHTS
    clone.project.configure(
        f'[cache]\nurl = "{clone.cache}"\n[models.tiny]\nmodel_type = "sam2_hiera_tiny"\n'
        f'url = "{server.url("/tiny.pt")}"\n' + (f'sha256 = "{pin}"\n' if pin else "")
    )


@pytest.mark.parametrize("pin", [PIN, None], ids=["pinned", "unpinned"])
def test_a_checkpoint_comes_from_the_cache_only_with_a_pinned_hash(
    tmp_path: Path, cache: Path, server: FileServer, pin: str | None
) -> None:
    for name in ("first", "second"):
        clone = Clone(tmp_path / name / "project", str(cache))
        from_address(clone, server, pin)
        succeeded(clone.build("checkpoint:tiny"))
        assert (clone.project.root / "build/checkpoints/tiny.pt").read_bytes() == WEIGHTS
    assert len(server.requests) == (1 if pin else 2)


def test_a_poisoned_checkpoint_is_downloaded_instead(
    tmp_path: Path, cache: Path, server: FileServer
) -> None:
    first, second = (Clone(tmp_path / name / "project", str(cache)) for name in ("1", "2"))
    from_address(first, server, PIN)
    succeeded(first.build("checkpoint:tiny"))
    poison(cache, "checkpoint", b"poison")
    from_address(second, server, PIN)
    outcome = succeeded(second.run("checkpoint:tiny"))
    assert "checkpoint: the cache has a different file under this hash" in outcome.output
    assert (second.project.root / "build/checkpoints/tiny.pt").read_bytes() == WEIGHTS


# --- a cache that fails ------------------------------------------------------------------------


def test_an_unwritable_cache_is_one_warning(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file, where a folder is expected")
    clone = Clone(tmp_path / "first/project", str(cache))
    outcome = succeeded(clone.run("deploy:tiny"))
    assert outcome.output.count("warning: cache") == 1


def test_a_cache_with_write_false_receives_no_files(second: Clone, cache: Path) -> None:
    before = files(cache)
    second.model(more="opset = 18", cache="write = false")
    succeeded(second.build("deploy:tiny"))
    assert files(cache) == before


def test_an_unreachable_bucket_is_one_warning_and_none_for_a_fresh_build(
    tmp_path: Path,
) -> None:
    clone = Clone(tmp_path / "first/project", "s3://bucket/sam2")
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    outcome = succeeded(clone.run("deploy:tiny", **environment))
    assert outcome.output.count("warning: cache s3://bucket/sam2") == 1
    assert "this build continues without it" in outcome.output
    assert "warning" not in clone.run("deploy:tiny", **environment).output


def test_a_fresh_build_does_not_open_the_cache(second: Clone) -> None:
    succeeded(second.build("deploy:tiny"))
    second.project.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    imported = second.run("deploy:tiny").output
    assert "tasks.remote.shared_cache" in imported
    assert "fsspec" not in imported


@pytest.mark.parametrize("url", ["nothing://bucket/folder", "gcs://bucket/folder"])
def test_an_unsupported_cache_url_is_refused_before_any_stage_runs(
    tmp_path: Path, url: str
) -> None:
    clone = Clone(tmp_path / "first/project", url)
    output = failed(clone.build("deploy:tiny", CHEAP_FAIL="write_graphs"))
    assert f"[cache] url: {url}" in output
    assert "`cache=off` builds without it" in output


@pytest.mark.parametrize("url", ["out/cache", "public/cache", "file:out"])
def test_a_cache_inside_a_build_or_deploy_folder_is_refused(second: Clone, url: str) -> None:
    second.cache = url
    second.model()
    output = failed(second.build("deploy:tiny"))
    assert "[cache] url" in output
    assert "a folder that no build cleans" in output


def test_the_command_line_replaces_or_disables_the_cache(second: Clone, tmp_path: Path) -> None:
    assert "was told to fail" in failed(
        second.build("cache=off", "export:tiny", **NOTHING_COMPUTED)
    )
    succeeded(second.build(f"cache={tmp_path / 'other'}", "export:tiny"))
    assert entries(tmp_path / "other", "export")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"write": True}, "[cache] url: missing"),
        ({"url": 3}, "[cache] url: found 3"),
        ({"url": "x", "proofs": "yes"}, "[cache] proofs: found 'yes'"),
        ({"url": "x", "read": True}, "[cache] read: unknown"),
    ],
)
def test_a_mistake_in_the_cache_table_is_reported(table: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigurationError) as mistakes:
        parse({"cache": table, "models": {"m": {"url": "synthetic:"}}}, Path("models.toml"))
    assert expected in str(mistakes.value)


def test_a_local_path_does_not_affect_the_cache_key() -> None:
    keys = [
        key_of("export", {"inputs": {"architecture": path}}, {path: "file 0"})
        for path in ("/home/me/model.yaml", "/tmp/model.yaml")
    ]
    assert keys[0] == keys[1]


# --- a bucket ----------------------------------------------------------------------------------

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture
def bucket() -> Iterator[str]:
    """The address of a server that speaks S3 and has a bucket called ``lab``."""
    import boto3  # type: ignore[import-untyped]

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client(
        "s3",
        endpoint_url=address,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    ).create_bucket(Bucket="lab")
    yield address
    server.stop()


@pytest.mark.slow
def test_two_clones_share_a_bucket(tmp_path: Path, bucket: str) -> None:
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": bucket}
    first, second = (Clone(tmp_path / name / "project", "s3://lab/sam2") for name in ("1", "2"))
    outcome = succeeded(first.run("deploy:tiny", **environment))
    assert "warning" not in outcome.output
    succeeded(second.build("deploy:tiny", **environment, **NOTHING_COMPUTED))
    assert second.graph() == first.graph()
    listed = second.project.doit("cache", **environment)
    assert "s3://lab/sam2: 5 files" in listed.output


def test_missing_bucket_credentials_are_one_warning(tmp_path: Path, bucket: str) -> None:
    clone = Clone(tmp_path / "first/project", "s3://lab/sam2")
    environment = {
        "AWS_ENDPOINT_URL": bucket,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    outcome = succeeded(clone.run("deploy:tiny", **environment))
    assert outcome.output.count("warning: cache s3://lab/sam2") == 1
    assert "credentials" in outcome.output


def test_an_ftp_server_that_refuses_the_connection_is_one_warning(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "first/project", "ftp://127.0.0.1:9/sam2")
    outcome = succeeded(clone.run("deploy:tiny"))
    assert outcome.output.count("warning: cache ftp://127.0.0.1:9/sam2") == 1
    assert "Connection refused; this build continues without it" in outcome.output
    output = failed(clone.project.doit("cache"))
    assert "Connection refused" in output
    assert "Traceback" not in output


class Faulty(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system that always fails."""

    cachable = False

    def __init__(self, fails: str = "open") -> None:
        super().__init__()
        self.fails = fails
        if fails == "open":
            raise KeyError("no such realm")

    def cat_file(self, path: str, **options: object) -> bytes:
        raise {"value": ValueError, "runtime": RuntimeError}[self.fails]("no such realm")


@pytest.mark.parametrize("fails", ["open", "value", "runtime", "import"])
def test_any_exception_of_a_file_system_is_one_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_module.py").write_text("raise OSError('no such realm')")
    monkeypatch.syspath_prepend(str(tmp_path))
    faulty = "faulty_module.Faulty" if fails == "import" else Faulty
    fsspec.register_implementation("faulty", faulty, clobber=True)
    options = {} if fails == "import" else {"fails": fails}
    cache = shared_cache.SharedCache(CacheSettings("faulty://x/y", options=options))
    made = tmp_path / "made"
    made.write_bytes(b"made")
    for stage in ("export", "simplify"):
        assert cache.find(stage, "0" * 64, 1) is None
        cache.store(stage, "0" * 64, [made], {})
    assert capsys.readouterr().err.count("warning: cache faulty://x/y") == 1


def test_a_download_from_a_stalled_server_stops_at_the_time_limit(
    tmp_path: Path,
    server: FileServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    content = b"graph" * 1000
    output = storage.Output(hashlib.sha256(content).hexdigest(), len(content))
    path = shared_cache.file_path("/cache", output.sha256)
    server.files[path] = content
    server.stalled.add(path)
    cache = shared_cache.SharedCache(CacheSettings(server.url("/cache")))
    entry = shared_cache.Entry("0" * 64, (output,), {}, "")
    assert not cache.fetch(entry, [tmp_path / "graph"], SILENT)
    assert "no answer in 0 s; this build continues without it" in capsys.readouterr().err
    assert cache.find("export", "0" * 64, 1) is None  # and it is not contacted again
    server.reset()


class Stalling(MemoryFileSystem):  # type: ignore[misc]
    """A file system that blocks uploads until they are released."""

    protocol = "stalling"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    uploads = 0
    released = threading.Event()

    def put_file(self, *arguments: object, **options: object) -> None:
        Stalling.uploads += 1
        self.released.wait(9)
        super().put_file(*arguments, **options)


def test_a_stalled_upload_is_tried_once_and_the_build_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PATIENCE", 0.2)
    fsspec.register_implementation("stalling", Stalling, clobber=True)
    cache = shared_cache.SharedCache(CacheSettings("stalling://cache"))
    made = tmp_path / "made"
    made.write_bytes(b"made")
    for stage in ("export", "simplify"):
        cache.store(stage, "0" * 64, [made], {})
    Stalling.released.set()
    warning = "no answer in 0 s; this build stores nothing there"
    assert capsys.readouterr().err.count(warning) == 1
    assert Stalling.uploads == 1


# --- a folder that several people share --------------------------------------------------------

USER = """
import json, os, sys
from pathlib import Path
import fsspec
from tasks.remote.cache_settings import CacheSettings
from tasks.remote import shared_cache
from tasks.console.progress import SILENT

root, uid, umask, stage, *contents = sys.argv[1:]
fsspec.core.url_to_fs("/")  # imports what it needs
os.chroot(root)  # whose parents only root may enter
os.chdir("/")
os.umask(int(umask, 8))
os.setgroups([5000])
os.setgid(int(uid))
os.setuid(int(uid))
cache = shared_cache.SharedCache(CacheSettings("/cache"))
for content in contents:
    made = Path(f"/tmp/{uid}-{content}")
    made.write_text(content)
    cache.store(stage, content * 64, [made], {})
read = {}
for path, (stage, entry) in cache.entries()[0].items():
    copy = Path(f"/tmp/{uid}-copy")
    assert cache.fetch(entry, [copy], SILENT)
    read[entry.key[0]] = copy.read_text()
if uid == "1002":
    cache.remove([*cache.entries()[0], *cache.files()])
print(json.dumps(read))
"""


def user(root: Path, uid: int, umask: str, *arguments: str) -> dict[str, str]:
    """Store files as a user of the group 5000; return what that user then reads from the cache."""
    done = subprocess.run(
        [sys.executable, "-c", USER, str(root), str(uid), umask, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    read: dict[str, str] = json.loads(done.stdout)
    return read


@pytest.fixture
def group_folder(tmp_path: Path) -> Path:
    """A group-writable folder, inside a folder that stands for the whole disk."""
    if os.geteuid() != 0:
        pytest.skip("only root can act for two users")
    root = tmp_path / "disk"
    for folder, mode in ((root, 0o755), (root / "tmp", 0o1777), (root / "cache", 0o2770)):
        folder.mkdir()
        folder.chmod(mode)
    os.chown(root / "cache", 0, 5000)
    return root


@pytest.mark.parametrize("umask", ["022", "077"])
def test_group_members_store_read_and_remove_entries_with_any_umask(
    group_folder: Path, umask: str
) -> None:
    assert user(group_folder, 1001, umask, "export", "a", "b") == {"a": "a", "b": "b"}
    # All entries of a stage share a folder; `a` was stored by the first user.
    both = user(group_folder, 1002, umask, "export", "a", "c", "d")
    assert both == {each: each for each in "abcd"}
    assert not [each for each in (group_folder / "cache/v1").rglob("*") if each.is_file()]


def test_a_single_users_cache_folder_follows_the_umask(tmp_path: Path) -> None:
    made, cache = tmp_path / "made", tmp_path / "cache"
    made.write_bytes(b"made")
    cache.mkdir(mode=0o700)
    shared_cache.SharedCache(CacheSettings(str(cache))).store("export", "0" * 64, [made], {})
    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE((cache / "v1").stat().st_mode) == 0o777 & ~umask


# --- doit cache --------------------------------------------------------------------------------


def test_doit_cache_lists_the_stored_entries(second: Clone) -> None:
    lines = second.project.doit("cache").output.splitlines()
    assert lines[0].endswith("5 files, 0.2 MiB")
    assert [line.split()[0] for line in lines[1:]] == ["export", "simplify", "verify"]


def test_pruning_removes_old_entries_and_the_files_that_only_they_name(
    second: Clone, cache: Path
) -> None:
    (exported,) = entries(cache, "export")
    entry = json.loads(exported.read_text())
    entry["stored"] = (datetime.now(UTC) - timedelta(days=31)).isoformat()
    exported.write_text(json.dumps(entry))
    for path in files(cache):
        os.utime(path, (0, 0))
    outcome = second.project.doit("cache", "--prune", "--older-than", "30d")
    assert "1 entries and 2 files" in outcome.output
    assert not entries(cache, "export")
    left = {path.name for path in files(cache)}
    assert not left & {each["sha256"] for each in entry["outputs"]}
    succeeded(second.build("simplify:tiny"))


def test_pruning_keeps_a_new_file_that_has_no_entry_yet(second: Clone, cache: Path) -> None:
    fresh = cache / "v1/files/ab" / ("ab" * 32)
    fresh.parent.mkdir(exist_ok=True)
    fresh.write_bytes(b"being stored")
    second.project.doit("cache", "--prune", "--older-than", "30d")
    assert fresh.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--prune"], "--prune and --older-than go together"),
        (["--older-than", "30d"], "--prune and --older-than go together"),
        (
            ["--prune", "--older-than", "soon"],
            "expected hours, days or weeks, as in 12h, 30d or 8w",
        ),
    ],
)
def test_wrong_usage_prints_the_expected_usage(
    second: Clone, arguments: list[str], expected: str
) -> None:
    assert expected in failed(second.project.doit("cache", *arguments))


def test_doit_cache_reports_an_unreachable_bucket_without_a_traceback(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "first/project", "s3://bucket/sam2")
    environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    output = failed(clone.project.doit("cache", **environment))
    assert "cache s3://bucket/sam2: " in output
    assert "Traceback" not in output


def test_doit_cache_fails_when_no_cache_is_configured(second: Clone) -> None:
    assert "configures no cache" in failed(second.project.doit("cache=off", "cache"))

"""Secrets in addresses stay in the configuration: everything a build leaves is searched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, free_port
from doit.task import Task
from hub import Answer
from huggingface_hub import constants
from project import ROOT, Outcome, Project, wait_for_opening
from server import Fault, FileServer
from test_cluster import MODEL, Quick, checkout
from writable_hub import TOKEN, WritableHub

from tasks.building.build import Build
from tasks.building.stage import Stage, Workspace
from tasks.config.location import CheckpointLocation
from tasks.config.parse import check_variables, parse
from tasks.config.schema import Configuration, ConfigurationError
from tasks.console import address
from tasks.remote import hub as hub_files
from tasks.remote.cache_settings import CacheSettings
from tasks.system.errors import StageError

MARK = "s3cr3t"  # a part of every secret
USER, PASSWORD = f"url-user-{MARK}", f"url%2Fpassword%40{MARK}"
SIGNATURE, FILE = f"url-signature-{MARK}", f"url-file-{MARK}"
QUERY = f"?X-Amz-Signature={SIGNATURE}&file={FILE}"
CACHE_USER, CACHE_PASSWORD = f"cache-user-{MARK}", f"cache-password-{MARK}"
CACHE_QUERY = f"?endpoint=cache-query-{MARK}"
OPTION = f"cache-option-{MARK}"
OPTIONS = f'options = {{ key = "{OPTION}", client_kwargs = {{ token = "{OPTION}" }} }}\n'
CONTENT = b"weights" * 30_000
PIN = hashlib.sha256(CONTENT).hexdigest()


def traces() -> dict[bytes, str]:
    """What to search for: the mark, and each secret in base64 and as a hash."""
    found = {MARK.encode(): "as it is"}
    pairs = (f"{USER}:url/password@{MARK}", f"{CACHE_USER}:{CACHE_PASSWORD}")
    secrets = (USER, PASSWORD, SIGNATURE, FILE, QUERY, QUERY[1:], CACHE_USER, CACHE_PASSWORD)
    for each in (*pairs, *secrets, f"file={FILE}", OPTION):
        found[base64.b64encode(each.encode())[:-4]] = f"{each} in base64"
        for name in ("md5", "sha1", "sha256"):
            digest = hashlib.new(name, each.encode()).hexdigest()
            found[digest[:16].encode()] = f"{name} of {each}"
    return found


TRACES = traces()


def secrets_in(content: bytes) -> list[str]:
    return [how for trace, how in TRACES.items() if trace in content]


def secrets_below(folder: Path) -> dict[str, list[str]]:
    """The secrets in names and contents of all files below a folder, except configurations."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.endswith("config/models.toml"):
            secrets = secrets_in(name.encode() + b"\n" + path.read_bytes())
            found |= {name: secrets} if secrets else {}
    return found


def assert_no_secrets(folder: Path, *outcomes: Outcome | str | bytes) -> None:
    """Search all files below a folder, and outputs."""
    assert secrets_below(folder) == {}
    for each in outcomes:
        text = each.output if isinstance(each, Outcome) else each
        assert not secrets_in(text if isinstance(text, bytes) else text.encode()), text


def table(url: str, more: str = "", cache: str = "") -> str:
    return (
        '[build]\ndeploy = "public"\n[browser]\nenabled = false\n'
        f'{cache}[publish]\nrepo = "my-lab/{{folder}}"\n'
        f'[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "{url}"\nlicense = "mit"\n{more}\n'
    )


def with_secrets(url: str, query: str = QUERY) -> str:
    return url.replace("://", f"://{USER}:{PASSWORD}@") + query + f"#{MARK}"


CACHE = f"memory://{CACHE_USER}:{CACHE_PASSWORD}@lab/onnx{CACHE_QUERY}"
WITH_CACHE = f'[cache]\nurl = "{CACHE}"\n{OPTIONS}'


@pytest.fixture
def offered(server: FileServer) -> FileServer:
    """A server that sends the checkpoint to requests with the query."""
    server.files[f"/m.pt{QUERY}"] = CONTENT
    return server


@pytest.mark.parametrize(
    "left",
    [
        MARK,
        base64.b64encode(f"{CACHE_USER}:{CACHE_PASSWORD}".encode()).decode(),
        hashlib.sha256(FILE.encode()).hexdigest(),
    ],
)
def test_the_search_finds_a_secret_in_any_file(tmp_path: Path, left: str) -> None:
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/log").write_bytes(b"\xff\x00" + left.encode() + b"\n")
    assert list(secrets_below(tmp_path)) == ["deep/er/log"]
    with pytest.raises(AssertionError):
        assert_no_secrets(tmp_path)


def test_the_search_finds_a_secret_in_a_file_name_and_in_output(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        assert_no_secrets(tmp_path, Outcome(0, f"downloaded {SIGNATURE}", {}))
    (tmp_path / f"{MARK}.log").touch()
    assert secrets_below(tmp_path)


# --- what a build leaves ---


def test_a_build_sends_the_whole_address_and_leaves_no_secrets_behind(
    project: Project, offered: FileServer, tmp_path: Path
) -> None:
    project.configure(table(with_secrets(offered.url("/m.pt")), cache=WITH_CACHE))
    built = project.doit("run", "-v", "2", "deploy:tiny")
    assert built.status == 0, built.output
    path, headers = offered.requests[0]
    assert path == f"/m.pt{QUERY}"
    sent = base64.b64encode(f"{USER}:url/password@{MARK}".encode()).decode()
    assert headers["Authorization"] == f"Basic {sent}"
    shown = [project.doit(*words) for words in (["status"], ["info", "checkpoint:tiny"], ["cache"])]
    shown += [project.doit("report"), project.doit("dumpdb")]
    assert_no_secrets(tmp_path, built, *shown)
    manifest = json.loads((project.root / "public/sam2_hiera_tiny/manifest.json").read_text())
    assert manifest["checkpoint"]["url"] == offered.url("/m.pt")
    assert f"{offered.url('/m.pt')} is the right file; it has sha256 = " in built.output
    assert "memory://lab/onnx" in shown[2].output


@pytest.mark.parametrize(
    ("faults", "more", "words"),
    [
        ([Fault(status=403)], "", "cannot be downloaded: the server answered 403"),
        ([Fault(drop_after=99), *[Fault(status=503)] * 6], "", "6 attempts"),
        ([Fault(body=b"<html>")], "", "answers with a web page"),
        ([Fault(status=302, headers={"Location": f"ftp://{MARK}@x/y"})], "", "cannot be used"),
        ([], f'sha256 = "{"0" * 64}"', "is not the expected file"),
        ([], "size = 1", "expected 1 bytes"),
    ],
    ids=["refused", "broken off", "a page", "redirected", "another hash", "another size"],
)
def test_a_failed_download_leaves_no_secrets_behind(
    project: Project,
    offered: FileServer,
    tmp_path: Path,
    faults: Iterable[Fault],
    more: str,
    words: str,
) -> None:
    offered.faults.extend(faults)
    project.configure(table(with_secrets(offered.url("/m.pt")), more))
    failed = project.doit("checkpoint:tiny", CHEAP_IMPATIENT="1")
    assert failed.status == 1
    assert words in failed.output
    assert f"{offered.url('/m.pt')} " in failed.output
    assert_no_secrets(tmp_path, failed)


def test_an_unreachable_server_is_named_without_secrets(project: Project, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    project.configure(table(with_secrets(f"http://{host}/m.pt")))
    failed = project.doit("checkpoint:tiny", CHEAP_IMPATIENT="1")
    assert f"{host} cannot be reached: Connection refused" in failed.output
    assert_no_secrets(tmp_path, failed)


def test_cache_errors_and_suggested_commands_show_no_secrets(
    project: Project, tmp_path: Path
) -> None:
    project.configure(table("synthetic:", cache=f'[cache]\nurl = "x"\n{OPTIONS}'))
    host = f"127.0.0.1:{free_port()}"
    given = f"cache=ftp://{CACHE_USER}:{CACHE_PASSWORD}@{host}/lab{CACHE_QUERY}"
    built = project.doit(given, "export:tiny")
    proposed = project.doit(given, "exprt")
    looked = project.doit(given, "cache")
    mistyped = project.doit("export:tiny", given.removeprefix("cache=").partition("?")[0])
    assert f"`doit cache=ftp://{host}/lab export`" in proposed.output
    assert f"ftp://{host}/lab" in looked.output
    assert_no_secrets(tmp_path, built, proposed, looked, mistyped)


def test_a_running_build_and_its_lock_show_no_secrets(project: Project, tmp_path: Path) -> None:
    project.configure(table("synthetic:"))
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    project.environment |= {"CHEAP_HANG": "write_graphs", "CHEAP_FIFO": str(fifo)}
    process = project.start(f"cache={CACHE}", "export:tiny")
    wait_for_opening(fifo, process)
    second = project.doit("export:tiny")
    assert "cache=memory://lab/onnx export:tiny`, since" in second.output
    assert_no_secrets(tmp_path, second)
    process.kill()
    process.communicate()


@pytest.fixture
def hub(server: FileServer) -> Iterator[WritableHub]:
    made = WritableHub(server)
    yield made
    made.close()


def test_published_files_contain_no_secrets(
    project: Project, offered: FileServer, hub: WritableHub, tmp_path: Path
) -> None:
    project.configure(table(with_secrets(offered.url("/m.pt")), f'sha256 = "{PIN}"'))
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    at = hub.address.replace("://", f"://{USER}:{PASSWORD}@")
    refused = project.doit("publish:tiny", **environment, HF_ENDPOINT=at, HF_TOKEN="hf_none")
    published = project.doit("publish:tiny", **environment, HF_ENDPOINT=hub.address, HF_TOKEN=TOKEN)
    assert published.status == 0, published.output
    files = hub.files("my-lab/sam2_hiera_tiny")
    assert offered.url("/m.pt") in files["README.md"].decode()
    received = [*files.values(), *(each.message.encode() for each in hub.commits)]
    assert_no_secrets(tmp_path, refused, published, *received, *hub.requests)


def test_a_retried_upload_shows_no_signature(
    project: Project, offered: FileServer, hub: WritableHub, tmp_path: Path
) -> None:
    project.configure(table(offered.url(f"/m.pt{QUERY}"), f'sha256 = "{PIN}"'))
    hub.signature = f"?X-Amz-Signature={SIGNATURE}"
    hub.faults["PUT /storage"] = Answer(503)
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    failed = project.doit(
        "publish:tiny", **environment, HF_ENDPOINT=hub.address, CHEAP_IMPATIENT="1"
    )
    assert "503 thrown while requesting PUT http://localhost:" in failed.output
    assert_no_secrets(tmp_path, failed)


@pytest.mark.slow
def test_a_cluster_receives_no_secrets_and_its_workers_open_the_cache_themselves(
    tmp_path: Path,
) -> None:
    quick = Quick(tmp_path / "project")
    shutil.copy(ROOT / "tests/fakes/recording_worker.py", quick.root)
    quick.configure(f'[cache]\nurl = "{tmp_path / "cache"}"\n{OPTIONS}{MODEL}')
    quick.give({"a": {"function": "make"}})
    elsewhere = checkout(quick, tmp_path / "elsewhere")
    given = tmp_path / "given"
    with Cluster(quick, tmp_path) as cluster:
        options = ("--preload", "recording_worker")
        cluster.start_worker(*options, folder=elsewhere, GIVEN_TO_WORKER=str(given))
        done = quick.doit(f"cluster={cluster.address}")
        assert done.status == 0, done.output
        assert quick.values("a")["started_by"] in cluster.pids
        shutil.rmtree(quick.root / "build")
        foreign = f"cache=ftp://{CACHE_USER}:{CACHE_PASSWORD}@127.0.0.1:1/lab{CACHE_QUERY}"
        refused = quick.doit(foreign, f"cluster={cluster.address}")
    assert refused.status == 1
    assert "does not configure the cache ftp://127.0.0.1:1/lab" in refused.output
    sent = given.read_text()
    assert str(tmp_path / "cache") in sent
    assert "ftp://127.0.0.1:1/lab" in sent
    assert_no_secrets(tmp_path, done, refused)


def test_a_traceback_shows_no_secrets(tmp_path: Path) -> None:
    def act(work: Workspace) -> None:
        raise RuntimeError(f"no answer from {with_secrets('https://host/m.pt')}")

    build = Build(Configuration(tmp_path / "models.toml", tmp_path, ()))
    (action,) = build.task(Stage("act", act))["actions"]
    message = action(Task("act", None)).get_msg()
    assert "RuntimeError: no answer from https://host/m.pt" in message
    assert not secrets_in(message.encode())


# --- which addresses are the same file ---


def test_a_new_password_and_signature_rebuild_nothing_but_another_parameter_does(
    project: Project, offered: FileServer
) -> None:
    url = offered.url("/m.pt")
    project.configure(table(with_secrets(url)))
    assert project.build("checkpoint:tiny").status == 0
    renewed = f"?X-Amz-Signature=renewed&file={FILE}&Expires=9"
    project.configure(table(with_secrets(url, renewed).replace(PASSWORD, "another")))
    assert project.build("checkpoint:tiny").ran == set()
    assert len(offered.requests) == 1
    other = QUERY.replace(FILE, "other.pt")
    offered.files[f"/m.pt{other}"] = b"other" * 1000
    project.configure(table(with_secrets(url, other)))
    why = project.doit("info", "checkpoint:tiny").output
    assert f"url was {url} (query " in why
    assert project.build("checkpoint:tiny").ran == {"checkpoint:tiny"}
    assert (project.root / "build/checkpoints/tiny.pt").read_bytes() == b"other" * 1000


def test_a_download_is_resumed_with_a_new_signature(project: Project, offered: FileServer) -> None:
    offered.faults.extend([Fault(drop_after=200_000), *[Fault(status=503)] * 6])
    project.configure(table(with_secrets(offered.url("/m.pt"))))
    assert project.doit("checkpoint:tiny", CHEAP_IMPATIENT="1").status == 1
    offered.faults.clear()
    renewed = QUERY.replace(SIGNATURE, "renewed")
    offered.files[f"/m.pt{renewed}"] = CONTENT
    offered.etags = dict.fromkeys(offered.files, f'"{hash(CONTENT)}"')
    project.configure(table(with_secrets(offered.url("/m.pt"), renewed)))
    assert project.doit("checkpoint:tiny").status == 0
    assert offered.ranges()[-1] == f"bytes={3 << 16}-"  # the whole chunks that arrived


@pytest.mark.parametrize(
    ("query", "names_the_file"),
    [
        ("", ""),
        ("download=1", "download=1"),
        ("versionId=3&X-Amz-Date=1&X-Amz-Signature=2", "versionId=3"),
        ("Expires=1&Signature=2&Key-Pair-Id=3&id=4", "id=4"),
        ("sv=2024&se=2026&sp=r&sig=x&file=y", "file=y"),
        ("se=2026&sp=r", "se=2026&sp=r"),  # without a signature these are not Azure's
        ("token=abc", ""),
    ],
)
def test_signing_parameters_of_an_address_do_not_identify_the_file(
    query: str, names_the_file: str
) -> None:
    assert address.query_of_file(f"https://host/m.pt?{query}#part") == names_the_file


# --- how an address is shown ---


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("https://host:8080/a/m.pt", "https://host:8080/a/m.pt"),
        ("https://me:pw@host:8080/a/m.pt?sig=1#part", "https://host:8080/a/m.pt"),
        ("https://me@host/m.pt", "https://host/m.pt"),
        ("https://me:p@ss@host/m.pt", "https://host/m.pt"),
        ("ftp://me:p/ss@host/lab", "ftp://host/lab"),
        ("ftp://me:p?s#s@host/lab", "ftp://host/lab"),
        ("ftp://me:pw", "ftp://me"),
        ("ftp://me:12/pw@host/x", "ftp://host/x"),
        ("ftp://me:p@x/pw@host/x", "ftp://host/x"),
        ("ftp://[me:12/pw@host/x", "ftp://host/x"),
        ("https://host/@me/m.pt", "https://host/@me/m.pt"),
        ("http://[::1]:80/m.pt?x", "http://[::1]:80/m.pt"),
        ("http://[::1]:80/@me/m.pt", "http://[::1]:80/@me/m.pt"),
        ("simplecache::s3://key:pw@lab/sam2", "simplecache::s3://lab/sam2"),
        ("s3://lab/sam2", "s3://lab/sam2"),
        ("https:/me:pw@host/m.pt?x", "host/m.pt"),
        ("me_:pw@host/m.pt?x", "host/m.pt"),
        ("weights/a@b#1.pt", "weights/a@b#1.pt"),
        ("/data/weights", "/data/weights"),
        ("file:///data/m.pt", "file:///data/m.pt"),
        ("hf:me/cells@v1/m.pt", "hf:me/cells@v1/m.pt"),
        ("hf:me:pw@owner/name", "hf:owner/name"),
        ("hf:me/cells/m.pt?token=pw#part", "hf:me/cells/m.pt"),
        ("synthetic:?seed=1", "synthetic:?seed=1"),
    ],
)
def test_an_address_is_shown_without_user_password_query_and_fragment(
    written: str, shown: str
) -> None:
    assert address.shown(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Max retries exceeded with url: /m.pt?sig=s3cr3t (Caused by x)",
        "403 for url: https://me:s3cr3t@other/m.pt?x=s3cr3t.",
        "530 Login incorrect for me-s3cr3t with p/s3cr3t, Basic bWUtczNjcjN0OnAvczNjcjN0",
        "no such bucket: 'me-s3cr3t:p%2Fs3cr3t@host'",
        "key-s3cr3t is no key",
    ],
)
def test_a_message_of_a_library_is_shown_without_secrets(text: str) -> None:
    url = "https://me-s3cr3t:p%2Fs3cr3t@host/m.pt?sig=s3cr3t"
    assert not secrets_in(address.without_secrets(text, url, {"a": {"key": "key-s3cr3t"}}).encode())


def test_a_message_without_secrets_is_shown_unchanged() -> None:
    text = "Could not connect to http://127.0.0.1:1/lab: is it there? Did you mean 'm.pt'?"
    assert address.without_secrets(text, "s3://lab/x", {"anon": True}) == text


@pytest.mark.parametrize(
    "tables",
    [
        {"models": {"m": {"url": f"htps://{USER}:{MARK}@host/m.pt{QUERY}"}}},
        {"models": {"m": {"url": f"https://{USER}:p/{MARK}@host/m.pt"}}},
        {"models": {"m": {"url": f"ftp://{USER}:12/{MARK}@host/m.pt"}}},
        {"models": {"m": {"url": f"http://me:12/{MARK}@host/m.pt"}}},
        {"models": {"m": {"url": f"http://me:pw@x/{MARK}@host/m.pt"}}},
        {"models": {"m": {"url": f"hf:me:{MARK}@owner/name"}}},
        {"models": {"m": {"url": f"hf:me/cells:{MARK}@owner/name"}}},
        {"models": {"m": {"url": f"hf:me/cells/m.pt?token={MARK}"}}},
        {"models": {"m": {"url": f"hf:me/cells/m.pt#{MARK}"}}},
        {"models": {"m": {"url": [f"https://{USER}@host/m.pt{QUERY}"]}}},
        {"models": {"m": f"https://{USER}@host/m.pt{QUERY}"}},
        {"cache": CACHE},
        {"cache": {"url": f"ftp://me:12/{MARK}@host/x"}},
        {"cache": {"url": f"ftp://[me:12/{MARK}@host/x"}},
        {"cache": {"url": "x", "options": OPTION}},
        {"build": {"cluster": f"tcp://{USER}:{MARK}@host:1"}},
        {"cache": {"url": f"file:build/{QUERY}", "options": {"key": OPTION}, "write": 3}},
    ],
)
def test_a_configuration_error_shows_no_secrets(
    tables: dict[str, object],
) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse({"models": {"m": {"url": "synthetic:"}}, **tables}, Path("models.toml"))
    assert "allowed: " in str(error.value)
    assert not secrets_in(str(error.value).encode())


def test_a_cache_on_the_command_line_with_a_possible_password_in_its_path_is_refused() -> None:
    tables = {"models": {"m": {"url": "synthetic:", "model_type": "edgetam"}}}
    with pytest.raises(ConfigurationError, match="cache: found 'ftp://host/x'") as error:
        parse(tables, Path("models.toml"), cache=f"ftp://me:12/{MARK}@host/x")
    assert not secrets_in(str(error.value).encode())


def test_addresses_in_the_origin_and_the_license_lose_their_secrets() -> None:
    text = f"fine-tuned, https://me:{MARK}@host/x?sig={MARK}"
    model_table = {"url": "synthetic:", "model_type": "edgetam", "origin": text, "license": text}
    (model,) = parse({"models": {"m": model_table}}, Path("models.toml")).sources
    assert model.origin == model.license == "fine-tuned, https://host/x"


@pytest.mark.parametrize(
    "endpoint",
    [
        f"http://me:{MARK}/pw@host",
        f"http://me:12/{MARK}@host",
        f"http://me:{MARK}#pw@host",
        f"me:{MARK}@host",
        f"http://[{MARK}@host",
    ],
)
def test_an_invalid_hub_address_is_reported_only_by_its_variable(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(StageError, match="HF_ENDPOINT is not the address of a hub") as refusal:
        hub_files.find("me/cells", "main", "m.pt", "[models.m]")
    assert not secrets_in(str(refusal.value).encode())


def test_an_address_given_as_a_variable_name_is_reported_without_secrets() -> None:
    with pytest.raises(ConfigurationError) as error:
        check_variables([f"https://{USER}@host/m.pt?{SIGNATURE}"], ["cache"])
    assert "https://host/m.pt=" in str(error.value)
    assert not secrets_in(str(error.value).encode())


def test_the_repr_of_a_source_and_of_a_cache_shows_no_secrets() -> None:
    assert MARK not in repr(CheckpointLocation("http", with_secrets("https://host/m.pt")))
    assert MARK not in repr(CacheSettings(CACHE, options={"key": OPTION}))


# --- permissions of files ---


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("umask", "folder"), [(0o077, 0o755), (0o022, 0o2775), (0o002, 0o750)])
def test_records_are_private_and_deployed_files_follow_the_permissions_of_the_folder(
    project: Project, offered: FileServer, umask: int, folder: int
) -> None:
    offered.faults.append(Fault(drop_after=99))
    project.configure(table(with_secrets(offered.url("/m.pt"))) + 'client = "transformers.js"\n')
    place = project.root / "public/sam2_hiera_tiny"
    place.mkdir(parents=True)
    place.chmod(folder)
    before = os.umask(umask)
    try:
        built = project.doit("deploy:tiny", CHEAP_IMPATIENT="1")
    finally:
        os.umask(before)
    assert built.status == 0, built.output
    records = [
        *(project.root / "build/state").iterdir(),
        project.root / "build/checkpoints/tiny.json",
    ]
    assert {mode(path) for path in records if path.name != "lock"} == {0o600}
    deployed = [path for path in place.rglob("*") if path.is_file()]
    assert {path.name for path in deployed} >= {
        "manifest.json",
        "config.json",
        "vision_encoder.onnx",
    }
    assert {mode(path) for path in deployed} == {folder & 0o666}
    assert mode(place) == folder
    if folder & 0o020:
        assert mode(place / "onnx") == folder


def test_a_deploy_into_a_group_folder_keeps_the_permissions_of_the_group(project: Project) -> None:
    project.configure(table("synthetic:"))
    (project.root / "public").mkdir()
    (project.root / "public").chmod(0o2775)
    assert project.doit("deploy:tiny").status == 0
    assert mode(project.root / "public/sam2_hiera_tiny") == 0o2775
    assert mode(project.root / "public/sam2_hiera_tiny/manifest.json") == 0o664


def test_the_note_beside_a_partial_download_is_private(
    project: Project, offered: FileServer
) -> None:
    offered.faults.extend([Fault(drop_after=99), *[Fault(status=503)] * 6])
    project.configure(table(with_secrets(offered.url("/m.pt"))))
    assert project.doit("checkpoint:tiny", CHEAP_IMPATIENT="1").status == 1
    assert mode(project.root / "build/checkpoints/tiny.pt.part.json") == 0o600

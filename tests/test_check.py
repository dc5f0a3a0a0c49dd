"""`doit check` verifies that a folder, or a repository of the hub, is as it was deployed."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deployed_folder
import pytest
from deployed_folder import check, contents, graph, link, relist, swap, write
from server import FileServer
from writable_hub import WritableHub

from tasks.clients.contract import GraphTensors, Tensor
from tasks.proof.integrity import check_folder

REPO = "my-lab/tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny")


def wrong(folder: Path) -> list[str]:
    """The problems, as the command prints them."""
    return [f"{each.subject}: {each.text}" for each in check_folder(folder) if each.state != "ok"]


def edit_manifest(folder: Path, change: Callable[[Any], object]) -> None:
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- an intact folder -----------------------------------------------------------------------------


def test_an_intact_folder_prints_a_line_per_check_and_exits_with_status_0(folder: Path) -> None:
    done = check(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok      manifest   schema 6, tiny for samexporter",
        "ok      files      3 files, 0.0 MiB, all as in the manifest",
        "ok      others     no other files",
        "ok      tensors    tensors of 2 graphs match the manifest",
        "ok      signature  not signed",
    ]


def test_check_needs_neither_torch_nor_onnxruntime_nor_a_configuration(
    folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("torch", "onnxruntime", "sam2", "model_signing", "dodo"):
        (broken / f"{name}.py").write_text(f"raise ImportError('there is no {name}')")
    done = check(folder, environment={"PYTHONPATH": str(broken)})
    assert (done.returncode, done.stderr) == (0, "")


def test_files_that_no_client_loads_are_allowed(folder: Path) -> None:
    for name in ("README.md", "LICENSE", "demo.png", ".gitattributes"):
        (folder / name).write_text("ours")
    (folder / ".cache/huggingface").mkdir(parents=True)
    (folder / ".cache/huggingface/refs").write_text("")
    assert wrong(folder) == []


def test_a_large_folder_is_checked_within_three_seconds(folder: Path) -> None:
    weights = bytes(75 << 20)
    for name, tensors in deployed_folder.GRAPHS.items():
        relist(folder, name, graph(tensors, weights=weights))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = check(folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout
    # CPU time, because the machine may be busy.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


# --- damage ---------------------------------------------------------------------------------------


def link_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "onnx").symlink_to("../elsewhere")


def flip(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


OTHER = "onnx/encoder.onnx is not listed in the manifest"
DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a changed byte of a graph": (
        lambda folder: flip(folder, "encoder.onnx"),
        ["files: encoder.onnx was changed: expected sha256"],
    ),
    "a changed byte of a client's document": (
        lambda folder: flip(folder, "config.json"),
        ["files: config.json was changed: expected sha256"],
    ),
    "swapped graphs": (
        swap,
        [
            "files: encoder.onnx has the content of decoder.onnx",
            "files: decoder.onnx has the content of encoder.onnx",
        ],
    ),
    "an added file": (
        lambda folder: (folder / "evil.js").write_text(""),
        ["others: evil.js is not listed in the manifest"],
    ),
    "an added file in a folder": (
        lambda folder: (folder / "onnx").mkdir() or flip_copy(folder),
        [f"others: {OTHER}"],
    ),
    "a removed file": (
        lambda folder: (folder / "decoder.onnx").unlink(),
        ["files: decoder.onnx is missing"],
    ),
    "a renamed file": (
        lambda folder: (folder / "decoder.onnx").rename(folder / "other.onnx"),
        [
            "files: decoder.onnx is missing",
            "others: other.onnx is not listed in the manifest: it has the content of decoder.onnx, "
            "so it was renamed or copied",
        ],
    ),
    "an empty file": (
        lambda folder: (folder / "encoder.onnx").write_bytes(b""),
        ["files: encoder.onnx is empty: expected "],
    ),
    "a truncated file": (
        lambda folder: (folder / "encoder.onnx").write_bytes(contents()["encoder.onnx"][:-9]),
        ["files: encoder.onnx has "],
    ),
    "a link": (
        link,
        ["files: encoder.onnx is a link to ../encoder.onnx: expected a file"],
    ),
    "a link to a folder": (link_folder, ["others: onnx is not listed in the manifest"]),
    "a folder in place of a file": (
        lambda folder: (folder / "encoder.onnx").unlink() or (folder / "encoder.onnx").mkdir(),
        ["files: encoder.onnx is not a regular file"],
    ),
    "a pipe": (
        lambda folder: os.mkfifo(folder / "pipe"),
        ["others: pipe is not listed in the manifest"],
    ),
}


def flip_copy(folder: Path) -> None:
    shutil.copy(folder / "encoder.onnx", folder / "onnx/encoder.onnx")
    flip(folder, "onnx/encoder.onnx")


@pytest.mark.parametrize(("damage", "lines"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_named_with_the_kind_of_damage(
    folder: Path, damage: Callable[[Path], object], lines: list[str]
) -> None:
    damage(folder)
    assert len(wrong(folder)) == len(lines)
    for problem, line in zip(wrong(folder), lines, strict=True):
        assert problem.startswith(line)


INVALID: dict[str, tuple[Callable[[Any], object], str]] = {
    "a key is missing": (lambda m: m.pop("masks"), "required field missing at masks"),
    "an unknown key": (lambda m: m.update(more=1), "extra fields found (more)"),
    "a string for a number": (
        lambda m: m["files"]["encoder.onnx"].update(size="12"),
        "expected int at files['encoder.onnx'].size",
    ),
    "an earlier schema": (
        lambda m: m.update(schema_version=4),
        "has schema_version 4, but this build reads 6",
    ),
    "a file outside the folder": (
        lambda m: m["files"].update({"../x": {"size": 1, "sha256": "0" * 64}}),
        "lists '../x', which is not a valid file name",
    ),
    "an invalid hash": (
        lambda m: m["files"]["encoder.onnx"].update(sha256="12"),
        "lists encoder.onnx without a SHA-256 and a size",
    ),
    "an unlisted graph": (
        lambda m: m["files"].pop("encoder.onnx"),
        "names encoder.onnx, but does not list it",
    ),
    "a deployed variant with a reason against it": (
        lambda m: m["variants"][0].update(reason="too far"),
        "must give a reason for fp32 exactly if it is not deployed",
    ),
    "null in place of an omitted key": (lambda m: m.update(video=None), "a key that is null"),
    "a recommended variant that is not deployed": (
        lambda m: m.update(recommended={"wasm": {"variant": "q8", "why": "small"}}),
        "recommends q8 on wasm, which is not deployed",
    ),
}


@pytest.mark.parametrize(("change", "words"), INVALID.values(), ids=INVALID)
def test_an_invalid_manifest_is_reported_with_the_reason(
    folder: Path, change: Callable[[Any], object], words: str
) -> None:
    edit_manifest(folder, change)
    manifest = [each for each in wrong(folder) if each.startswith("manifest: ")]
    assert words in "\n".join(manifest)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON, so it was cut off or edited"),
        ('{"schema_version": 6, "files": NaN}', "contains NaN, which is not valid JSON"),
        ("[]", "is not a manifest of this build"),
        ('{"name": "An app", "icons": []}', "Another program seems to have written it"),
        (b"\xff\xfe", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_foreign_or_unreadable_manifest_is_reported(
    folder: Path, text: str | bytes, words: str
) -> None:
    (folder / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    done = check(folder)
    assert done.returncode == 1
    assert words in done.stdout


def test_a_graph_whose_tensors_differ_from_the_manifest_is_named(folder: Path) -> None:
    other = Tensor("masks", "float32", ("num_prompts", 4, 2), "masks")
    relist(folder, "decoder.onnx", graph((deployed_folder.POINTS, other)))
    (line,) = wrong(folder)
    assert line == (
        "tensors: decoder.onnx gives masks float32 (num_prompts, 4, 2); the manifest has masks "
        "float32 (num_prompts, num_points, 2)"
    )


def test_a_listed_file_that_is_not_a_graph_is_named(folder: Path) -> None:
    relist(folder, "decoder.onnx", b"no graph at all")
    (line,) = wrong(folder)
    assert line.startswith("tensors: decoder.onnx is not a readable graph: ")


def test_a_changed_file_is_not_read_as_a_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.inference import graph_file

    read = []

    def tensors_of(path: str) -> GraphTensors:
        read.append(Path(path).name)
        return GraphTensors((), ())

    monkeypatch.setattr(graph_file, "tensors_of", tensors_of)
    flip(folder, "encoder.onnx")
    check_folder(folder)
    assert read == ["decoder.onnx"]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "there is no folder"),
        ("empty", "has no manifest.json, so this build did not make it"),
    ],
)
def test_a_folder_without_a_deployment_exits_with_status_2(
    name: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = check(tmp_path / name)
    assert done.returncode == 2
    assert words in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("hf:tiny",), ("hf:a/b/c",)])
def test_wrong_arguments_print_the_expected_usage(arguments: tuple[str, ...]) -> None:
    done = check(*arguments)
    assert done.returncode == 3
    assert "hf:OWNER/NAME" in done.stderr


# --- the hub --------------------------------------------------------------------------------------


@pytest.fixture
def hub(server: FileServer) -> Iterator[WritableHub]:
    made = WritableHub(server)
    yield made
    made.close()


def check_on(hub: WritableHub, place: str, tmp_path: Path) -> Any:
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": ""}
    return check(place, environment={**environment, "TMPDIR": str(tmp_path)})


def test_a_repository_is_checked_in_a_temporary_copy(
    folder: Path, hub: WritableHub, tmp_path: Path
) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.make(REPO, {**files, "README.md": b"ours"})
    before = {*tmp_path.iterdir()}
    done = check_on(hub, f"hf:{REPO}", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*tmp_path.iterdir()} - {tmp_path / "hf"} == before
    hub.add(REPO, {"encoder.onnx": b"another"}, "main")
    done = check_on(hub, f"hf:{REPO}", tmp_path)
    assert done.returncode == 1
    assert "encoder.onnx has 7 bytes" in done.stdout


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("hf:my-lab/other", "hf:my-lab/other does not exist, or needs a login"),
        (f"hf:{REPO}@v2", f"hf:{REPO} has no revision 'v2'"),
    ],
)
def test_an_unavailable_repository_exits_with_status_2(
    place: str, words: str, hub: WritableHub, tmp_path: Path
) -> None:
    hub.make(REPO)
    done = check_on(hub, place, tmp_path)
    assert done.returncode == 2
    assert words in done.stdout
    assert "Traceback" not in done.stderr
    hub.close()
    done = check_on(hub, f"hf:{REPO}", tmp_path)
    assert done.returncode == 2
    assert "cannot be reached" in done.stdout

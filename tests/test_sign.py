"""A signed deployment: who made it, how and from what; every edit of it is detected."""

from __future__ import annotations

import base64
import copy
import hashlib
import importlib.resources
import json
import os
import pty
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import deployed_folder
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from deployed_folder import check, link, manifest_of, relist, swap, text_of
from jsonschema import Draft7Validator
from project import Project
from referencing import Registry, Resource
from test_deploy_folder import app, contents, deploys, put, refused, succeeded

from tasks.proof import provenance, signature
from tasks.proof.manifest import read_manifest
from tasks.records.listing import MATERIALS, SIGNATURE, STATEMENT
from tasks.system import files

CONFIGURATION = (
    '[build]\ndeploy = "app"\n[browser]\nenabled = false\n{sign}'
    '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:?seed=1"\n'
    'folder = "tiny"\nlicense = "Apache-2.0"\n{more}\n'
)
GRAPHS = {"encoder.onnx", "decoder.onnx"}
SIGNED = {*GRAPHS, "manifest.json", STATEMENT, MATERIALS, SIGNATURE}
PASSPHRASE = "correct horse"


def write_keys(folder: Path, name: str, passphrase: str = "", key: Any = None) -> Path:
    """A private key, and its public key beside it (``.pub``)."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    hidden = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "ours")
    write_keys(folder, "theirs")
    write_keys(folder, "hidden", PASSPHRASE)
    write_keys(folder, "rsa", key=rsa.generate_private_key(65537, 2048))
    write_keys(folder, "curve", key=ec.generate_private_key(ec.SECP256K1()))
    return folder


# --- tampering with a signed folder ---------------------------------------------------------------


def sign(folder: Path, key: Path) -> None:
    """Sign the files of a folder."""
    scratch = folder.parent / f"scratch of {folder.name}"
    scratch.mkdir()
    there = {path.name: path for path in folder.iterdir() if path.name != SIGNATURE}
    (folder / SIGNATURE).write_text(signature.sign(there, key, folder / "none", scratch))
    shutil.rmtree(scratch)


def write_signed(folder: Path, key: Path, seed: int = 1) -> Path:
    deployed_folder.write(folder, seed)
    described = manifest_of(deployed_folder.contents(seed))
    made = {
        STATEMENT: provenance.statement(described, {}, {}, []),
        MATERIALS: provenance.bill_of_materials(described),
    }
    for name, content in made.items():
        relist(folder, name, json.dumps(content).encode())
    sign(folder, key)
    return folder


@pytest.fixture(scope="module")
def signed_once(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("signed")
    write_signed(place / "other", keys / "ours.pem", seed=2)
    write_signed(place / "theirs", keys / "theirs.pem")
    return write_signed(place / "tiny", keys / "ours.pem")


@pytest.fixture
def folder(signed_once: Path, tmp_path: Path) -> Path:
    for each in ("tiny", "other", "theirs"):
        shutil.copytree(signed_once.parent / each, tmp_path / each)
    return tmp_path / "tiny"


def test_a_signed_folder_is_checked_with_and_without_the_key(folder: Path, keys: Path) -> None:
    done = check(folder, "--key", keys / "ours.pub")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "ok      statement  statement.intoto.json names these files" in lines
    assert (
        f"covers these files, by the key {fingerprint(keys)[:16]}… of {keys}/ours.pub" in lines[-1]
    )
    done = check(folder)
    assert done.returncode == 0
    assert "--key FILE checks whose key it is" in done.stdout


def fingerprint(keys: Path) -> str:
    return hashlib.sha256((keys / "ours.pub").read_bytes()).hexdigest()


def test_a_folder_keeps_its_signature_under_another_name_and_with_a_readme(
    folder: Path, keys: Path
) -> None:
    moved = folder.rename(folder.with_name("downloaded"))
    (moved / "README.md").write_text("from the hub")
    assert check(moved, "--key", keys / "ours.pub").returncode == 0
    command = ["verify", "key", moved, "--signature", moved / SIGNATURE]
    done = subprocess.run(
        ["model_signing", *command, "--public_key", keys / "ours.pub"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PATH": f"{Path(shutil.which('doit') or '').parent}:{os.environ['PATH']}",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr


def flip(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def edit_json(name: str, change: Callable[[Any], object], listed: bool = False) -> Any:
    """Edit a JSON file; ``listed``: and update its entry in the manifest."""

    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        text = json.dumps(content).encode()
        relist(folder, name, text) if listed else (folder / name).write_bytes(text)

    return edit


def edit_payload(folder: Path, change: Callable[[Any], object]) -> None:
    """Edit the payload of a signature without signing it again."""
    bundle = json.loads((folder / SIGNATURE).read_text())
    envelope = bundle["dsseEnvelope"]
    payload = json.loads(base64.b64decode(envelope["payload"]))
    change(payload)
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    (folder / SIGNATURE).write_text(json.dumps(bundle))


def forge(folder: Path) -> None:
    """Replace a graph, and its hash everywhere."""
    old = signature.read(folder / SIGNATURE).files
    relist(folder, "encoder.onnx", deployed_folder.contents(2)["encoder.onnx"])
    new = {name: files.sha256_of(folder / name) for name in old}

    def rewrite(payload: Any) -> None:
        for each in payload["predicate"]["resources"]:
            each["digest"] = new[each["name"]]

    edit_payload(folder, rewrite)


def take(name: str, source: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(folder.parent / source / name, folder / name)


def truncate(folder: Path) -> None:
    text = (folder / SIGNATURE).read_text()
    (folder / SIGNATURE).write_text(text[: len(text) // 2])


def strip(folder: Path) -> None:
    """Remove every trace of a signature."""
    deployed = deployed_folder.contents()
    (folder / "manifest.json").write_text(text_of(manifest_of(deployed)))
    for name in (SIGNATURE, STATEMENT, MATERIALS):
        (folder / name).unlink()


def subject_elsewhere(statement: Any) -> None:
    statement["subject"][0]["digest"]["sha256"] = "0" * 64


TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte of a graph": (
        flip("encoder.onnx"),
        "encoder.onnx was changed: expected sha256",
    ),
    "a changed byte of a document": (flip("config.json"), "config.json was changed: expected"),
    "a changed byte of the materials": (flip(MATERIALS), f"{MATERIALS} was changed: expected"),
    "a changed byte of the manifest": (
        lambda folder: (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text().replace('"origin": "us"', '"origin": "me"')
        ),
        f"{SIGNATURE} covers another version of manifest.json",
    ),
    "swapped graphs": (swap, "encoder.onnx has the content of decoder.onnx"),
    "an added file": (
        lambda folder: (folder / "evil.js").write_text(""),
        "evil.js is not listed in the manifest",
    ),
    "an added file that is listed": (
        lambda folder: relist(folder, "evil.js", b""),
        f"{SIGNATURE} does not cover evil.js",
    ),
    "a removed file": (
        lambda folder: (folder / "decoder.onnx").unlink(),
        "decoder.onnx is missing",
    ),
    "a renamed file": (
        lambda folder: (folder / "decoder.onnx").rename(folder / "d.onnx"),
        "d.onnx is not listed in the manifest: it has the content of decoder.onnx, so it was",
    ),
    "a replaced graph that is listed": (
        lambda folder: relist(folder, "encoder.onnx", deployed_folder.contents(2)["encoder.onnx"]),
        f"{SIGNATURE} covers another version of encoder.onnx",
    ),
    "another folder's signature": (
        take(SIGNATURE, "other"),
        f"{SIGNATURE} covers another version of encoder.onnx",
    ),
    "a signature by another key": (
        take(SIGNATURE, "theirs"),
        f"{SIGNATURE} was made by another key",
    ),
    "a truncated signature": (truncate, f"{SIGNATURE} was cut off or edited"),
    "an empty signature": (
        lambda folder: (folder / SIGNATURE).write_text(""),
        f"{SIGNATURE} was cut off or edited",
    ),
    "a signature of another kind": (
        lambda folder: (folder / SIGNATURE).write_text('{"signature": "none"}'),
        f"{SIGNATURE} is not a signature of model-signing, or was edited",
    ),
    "an edited signature, for a graph that is replaced everywhere": (
        forge,
        f"{SIGNATURE} was edited: this key did not sign its content",
    ),
    "a removed signature": (
        lambda folder: (folder / SIGNATURE).unlink(),
        f"{SIGNATURE} is missing: a folder with {STATEMENT} is signed",
    ),
    "every trace of a signature removed": (strip, "not signed; expected a signature by "),
    "an edited statement": (
        edit_json(STATEMENT, subject_elsewhere),
        f"{STATEMENT} was changed: expected sha256",
    ),
    "an edited statement that is listed": (
        edit_json(STATEMENT, subject_elsewhere, listed=True),
        f"{STATEMENT} and the manifest have different hashes of encoder.onnx",
    ),
    "a link": (link, "encoder.onnx is a link to ../encoder.onnx: expected a file"),
    "a link in place of the signature": (
        lambda folder: (folder / SIGNATURE).rename(folder.parent / "s")
        and (folder / SIGNATURE).symlink_to("../s"),
        f"{SIGNATURE} is not a regular file",
    ),
    "an empty file": (
        lambda folder: (folder / "encoder.onnx").write_bytes(b""),
        "encoder.onnx is empty: expected",
    ),
    "an older manifest": (
        edit_json("manifest.json", lambda m: m.update(schema_version=4)),
        "has schema_version 4, but this build reads 6",
    ),
    "an earlier deployment's manifest": (
        take("manifest.json", "other"),
        f"{SIGNATURE} covers another version of manifest.json",
    ),
}


# Detected only with the signer's public key.
WITH_KEY = {
    "a signature by another key",
    "an edited signature, for a graph that is replaced everywhere",
    "every trace of a signature removed",
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_detected_and_described(kind: str, folder: Path, keys: Path) -> None:
    tamper, words = TAMPERING[kind]
    tamper(folder)
    done = check(folder, *(["--key", keys / "ours.pub"] if kind in WITH_KEY else []))
    assert done.returncode == 1, done.stdout
    assert done.stderr == ""
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert any(words in line for line in wrong), done.stdout


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("ours.pem", "ours.pem is a private key: expected the public key"),
        ("none.pub", "none.pub cannot be read: No such file or directory"),
        ("rsa.pub", "rsa.pub is not on an elliptic curve"),
        ("text.pub", "text.pub is not a public key in PEM"),
    ],
)
def test_without_a_usable_public_key_the_signer_cannot_be_checked(
    key: str, words: str, folder: Path, keys: Path
) -> None:
    (keys / "text.pub").write_text("ssh-ed25519 AAAA")
    done = check(folder, "--key", keys / key)
    assert done.returncode == 2
    assert words in done.stdout


def test_without_model_signing_the_signer_cannot_be_checked(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.proof.integrity import check_folder

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    *others, last = check_folder(folder, keys / "ours.pub")
    assert {each.state for each in others} == {"ok"}
    assert last.state == "unknown"
    assert "`uv sync --extra sign` installs it" in last.text


# --- what a deploy writes -------------------------------------------------------------------------


def configure(project: Project, key: Path | str | None, more: str = "") -> None:
    sign = f'[sign]\nkey = "{key}"\n' if key else ""
    project.configure(CONFIGURATION.format(sign=sign, more=more))


@pytest.fixture(scope="module")
def deployed_once(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("deployed") / "project", cheap=True)
    configure(project, keys / "ours.pem")
    deploys(project)
    return project


@pytest.fixture
def project(deployed_once: Project, tmp_path: Path) -> Project:
    return deployed_once.copy_to(tmp_path / "project")


def signature_of(project: Project) -> signature.Signed:
    return signature.read(app(project) / SIGNATURE)


def hashes(project: Project) -> dict[str, str]:
    folder = app(project)
    return {name: files.sha256_of(folder / name) for name in contents(folder) if name != SIGNATURE}


def test_a_signature_covers_every_deployed_file_and_changes_no_graph(
    deployed_once: Project, keys: Path, tmp_path: Path
) -> None:
    there = contents(app(deployed_once))
    assert set(there) == SIGNED
    assert signature_of(deployed_once).files == hashes(deployed_once)
    assert signature_of(deployed_once).signer == fingerprint(keys)
    manifest = read_manifest(app(deployed_once) / "manifest.json")
    assert manifest is not None
    assert set(manifest.files) == {*GRAPHS, STATEMENT, MATERIALS}
    unsigned = deployed_once.copy_to(tmp_path / "project")
    configure(unsigned, None)
    deploys(unsigned)
    assert {name: there[name] for name in GRAPHS}.items() <= contents(app(unsigned)).items()


def test_the_statement_records_how_the_files_were_made(deployed_once: Project) -> None:
    folder = app(deployed_once)
    statement = json.loads((folder / STATEMENT).read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    assert subjects == {name: hashes(deployed_once)[name] for name in GRAPHS}
    made = statement["predicate"]["buildDefinition"]
    stages = made["internalParameters"]
    assert list(stages) == ["checkpoint:tiny", "export:tiny", "simplify:tiny", "verify:tiny"]
    assert stages["export:tiny"]["inputs"]["opset"] == 20
    assert "torch" in stages["verify:tiny"]["inputs"]
    checkpoint, *others = made["resolvedDependencies"]
    weights = files.sha256_of(deployed_once.root / "build/checkpoints/tiny.pt")
    assert (checkpoint["name"], checkpoint["digest"]) == ("checkpoint", {"sha256": weights})
    code = {each["name"]: each["digest"] for each in others}
    assert {"tasks/export.py", "tasks/deploy.py", "tasks/verify.py"} <= code.keys()
    assert set(code["tasks/export.py"]) == {"pythonCodeSha256"}
    assert not any("build/" in name or ".pem" in name for name in code)
    (report,) = statement["predicate"]["runDetails"]["byproducts"]
    verify = files.sha256_of(deployed_once.root / "build/models/tiny/verify.json")
    assert (report["name"], report["digest"]) == ("verify fp32", {"sha256": verify})
    assert report["annotations"]["passed"] is True


def schema_of_cyclonedx() -> Draft7Validator:
    place = importlib.resources.files("cyclonedx.schema") / "_res"
    read = {
        name: json.loads((place / name).read_text())
        for name in (f"{each}.SNAPSHOT.schema.json" for each in ("bom-1.6", "spdx", "jsf-0.82"))
    }
    bom = read["bom-1.6.SNAPSHOT.schema.json"]
    base = bom["$id"].rpartition("/")[0]
    named = [(f"{base}/{name}", Resource.from_contents(each)) for name, each in read.items()]
    return Draft7Validator(bom, registry=Registry().with_resources(named))


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("apache-2.0", [{"license": {"id": "Apache-2.0"}}]),
        ("Our Licence", [{"license": {"name": "Our Licence"}}]),
        (None, None),
    ],
)
def test_the_bill_of_materials_is_valid_cyclonedx_with_licence_and_origin(
    license: str | None, expected: object
) -> None:
    described = manifest_of(deployed_folder.contents(), license=license)
    made = provenance.bill_of_materials(described)
    assert [each.message for each in schema_of_cyclonedx().iter_errors(made)] == []
    broken = copy.deepcopy(made)
    broken["metadata"]["component"]["modelCard"]["licence"] = "Apache-2.0"
    assert list(schema_of_cyclonedx().iter_errors(broken))
    component = made["metadata"]["component"]
    assert component.get("licenses") == expected
    properties = {each["name"]: each["value"] for each in component["modelCard"]["properties"]}
    assert properties["origin"] == "us"
    named = {each["name"]: each for each in made["components"]}
    for name, file in described.files.items():
        assert named[name]["hashes"] == [{"alg": "SHA-256", "content": file.sha256}]


def test_the_deployed_bill_of_materials_follows_the_schema(deployed_once: Project) -> None:
    made = json.loads((app(deployed_once) / MATERIALS).read_text())
    assert [each.message for each in schema_of_cyclonedx().iter_errors(made)] == []


def test_a_signature_stays_while_files_and_key_are_unchanged(project: Project, keys: Path) -> None:
    before = contents(app(project))
    assert "nothing to do" in deploys(project)
    succeeded(project.doit("forget", "deploy:tiny"))
    deploys(project)
    assert contents(app(project)) == before
    configure(project, keys / "theirs.pem")
    deploys(project)
    after = contents(app(project))
    assert after.pop(SIGNATURE) != before.pop(SIGNATURE)
    assert after == before


@pytest.mark.parametrize("damage", ["removed", "edited"])
def test_a_removed_or_edited_signature_is_recreated(project: Project, damage: str) -> None:
    path = app(project) / SIGNATURE
    path.unlink() if damage == "removed" else path.write_text("{}")
    deploys(project)
    assert signature_of(project).files == hashes(project)


def test_a_deploy_without_a_key_removes_all_files_of_a_signature(project: Project) -> None:
    configure(project, None)
    deploys(project)
    assert set(contents(app(project))) == {*GRAPHS, "manifest.json"}


def test_a_fresh_clone_without_a_key_removes_the_signature_of_files_it_replaces(
    project: Project, keys: Path
) -> None:
    shutil.rmtree(project.root / "build/state")
    configure(project, None, 'masks = "best"')
    deploys(project)
    assert SIGNATURE not in contents(app(project))


def test_another_programs_file_with_the_signatures_name_is_not_replaced(project: Project) -> None:
    shutil.rmtree(app(project))
    put(app(project) / SIGNATURE, "theirs")
    (project.root / "build/state/deployments.json").unlink()
    output = refused(project.doit("run", "deploy:tiny"))
    assert f"app/tiny/{SIGNATURE}: in no model's manifest" in output
    assert contents(app(project)) == {SIGNATURE: b"theirs"}


# --- all or nothing -------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a deploy as a signal would."""


def replace(place: Path) -> None:
    """Replace two files and the manifest of a sealed folder."""
    staged = {}
    for name in ("a", "b", "manifest", "seal"):
        staged[name] = put(place / f".staged/{name}", f"new {name}")
    files.replace_together(place, staged, ["old"], place / ".staged/before", "seal")


def sealed(place: Path) -> Path:
    for name in ("a", "b", "old", "manifest", "seal"):
        put(place / name, f"old {name}")
    return place


@pytest.mark.parametrize("step", range(1, 9))
@pytest.mark.parametrize("ends", [OSError, Killed])
def test_a_seal_never_lies_beside_files_that_it_does_not_cover(
    step: int, ends: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = sealed(tmp_path / "place")
    before, calls, real = contents(place), 0, os.replace

    def rename(source: Any, target: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == step or (calls > step and ends is Killed):  # a kill undoes nothing
            raise ends("at this step")
        real(source, target)

    monkeypatch.setattr(os, "replace", rename)
    if ends is Killed:
        monkeypatch.setattr(files, "suppress", lambda *_: suppress(Killed, OSError))
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with suppress(OSError, Killed):
        replace(place)
    there = contents(place)
    if "seal" in there:
        assert len({text.split()[0] for text in there.values()}) == 1, there
    if ends is OSError and calls >= step:
        assert there == before


def test_a_completed_replacement_has_the_new_seal(tmp_path: Path) -> None:
    place = sealed(tmp_path / "place")
    replace(place)
    assert contents(place) == {
        name: f"new {name}".encode() for name in ("a", "b", "manifest", "seal")
    }


# --- keys -----------------------------------------------------------------------------------------

MISTAKES = {
    "none.pem": "[sign] key: found '{path}', which cannot be read (No such file or directory); "
    "allowed: a private key; `openssl genpkey -algorithm EC",
    "ours.pub": "[sign] key: found '{path}', which is a public key; allowed: a private key",
    "text.pem": "[sign] key: found '{path}', which is not a key in PEM; allowed: a private key",
    "rsa.pem": "[sign] key: model-signing cannot sign with {path}: expected a key on the "
    "curve P-256, P-384, P-521",
    "curve.pem": "[sign] key: model-signing cannot sign with {path}",
    "broken.pem": "[sign] key: {path}: not a private key in PEM",
    "hidden.pem": "[sign] key: {path} has a passphrase, but there is no terminal to enter it. "
    "Set SIGN_KEY_PASSPHRASE",
}


@pytest.mark.parametrize(("name", "words"), MISTAKES.items(), ids=MISTAKES)
def test_a_key_that_cannot_sign_is_refused_and_nothing_is_replaced(
    name: str, words: str, project: Project, keys: Path
) -> None:
    (keys / "text.pem").write_text("a key")
    text = (keys / "ours.pem").read_text()
    (keys / "broken.pem").write_text(text.replace(text[60:80], "A" * 20))
    before = contents(app(project))
    configure(project, keys / name, 'masks = "best"')
    output = refused(project.doit("run", "deploy:tiny"))
    assert words.format(path=keys / name) in output
    assert contents(app(project)) == before


def test_a_passphrase_comes_from_the_environment_and_is_stored_nowhere(
    project: Project, keys: Path
) -> None:
    configure(project, keys / "hidden.pem")
    output = refused(project.doit("run", "deploy:tiny", SIGN_KEY_PASSPHRASE="wrong"))
    assert "wrong passphrase" in output
    output = succeeded(project.doit("run", "deploy:tiny", SIGN_KEY_PASSPHRASE=PASSPHRASE))
    assert check(app(project), "--key", keys / "hidden.pub").returncode == 1  # the graphs are fake
    assert signature_of(project).files == hashes(project)
    kept = [each.read_bytes() for each in project.root.rglob("*") if each.is_file()]
    assert not any(PASSPHRASE.encode() in each for each in [*kept, output.encode()])


def test_a_deploy_prompts_for_a_passphrase_on_a_terminal(project: Project, keys: Path) -> None:
    configure(project, keys / "hidden.pem")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(project.root)
        os.execve(
            project.command()[0],
            project.command("run", "deploy:tiny"),
            {**project.environment, "TERM": "dumb"},
        )
    output, answered = b"", False
    while True:
        try:
            read = os.read(terminal, 1024)
        except OSError:  # Linux's sign that the other end is closed
            break
        output += read
        if b"Passphrase of" in output and not answered:
            os.write(terminal, f"{PASSPHRASE}\n".encode())
            answered = True
        if not read:
            break
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0, output
    assert answered
    assert PASSPHRASE.encode() not in output
    assert signature_of(project).files == hashes(project)


def test_without_a_key_model_signing_is_not_imported(project: Project, tmp_path: Path) -> None:
    for name in ("model_signing", "cryptography", "OpenSSL"):
        put(project.root / f"{name}.py", f"raise ImportError('there is no {name}')")
    configure(project, None, 'masks = "best"')
    deploys(project)


def test_a_deploy_with_a_key_but_without_model_signing_shows_what_to_install(
    project: Project, keys: Path
) -> None:
    put(project.root / "sitecustomize.py", "import sys\nsys.modules['model_signing'] = None")
    configure(project, keys / "ours.pem", 'masks = "best"')
    output = refused(project.doit("run", "deploy:tiny"))
    assert "model-signing is not installed: `uv sync --extra sign` installs it" in output

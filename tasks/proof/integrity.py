"""Checks a deployed folder against its manifest, and its signature.

It needs only the folder: neither the build's records nor torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tasks.console.sizes import amount
from tasks.proof import signature
from tasks.proof.manifest import SCHEMA_VERSION, Manifest, as_json, structured
from tasks.records.listing import BESIDE, MANIFEST, SIGNATURE, STATEMENT, is_within_folder
from tasks.system.errors import StageError
from tasks.system.files import sha256_of

State = Literal["ok", "wrong", "unknown"]
Subject = Literal["folder", "manifest", "files", "others", "tensors", "statement", "signature"]


class Check(NamedTuple):
    """The result of one check of a folder: passed, or one problem."""

    subject: Subject
    state: State
    text: str

    def __str__(self) -> str:
        """A line to print."""
        return f"{self.state:<8}{self.subject:<10} {self.text}"


def check_folder(folder: Path, key: Path | None = None, strict: bool = True) -> list[Check]:
    """Check a folder; results come in the order in which a person should read them.

    :param key: the public key that must have signed the folder; None accepts any signer.
    :param strict: refuse files that the manifest does not list.
    """
    if not folder.is_dir():
        return [Check("folder", "unknown", f"there is no folder {folder}")]
    path = folder / MANIFEST
    if not path.is_file():
        return [
            Check(
                "manifest",
                "unknown",
                f"{folder} has no {MANIFEST}, so this build did not make it. Expected a folder "
                "that `doit deploy` wrote, or a copy of one.",
            )
        ]
    try:
        manifest = read_strictly(path)
    except ValueError as error:
        wrong = _wrong("manifest", str(error).splitlines())
        return [*wrong, *_signature(folder, _hashes(_look(folder)), None, key)]
    described = f"schema {manifest.schema_version}, {manifest.model} for {manifest.client}"
    there = _look(folder)
    files = list(_files(folder, manifest, there))
    others = list(_others(folder, manifest, there)) if strict else []
    intact = [name for name in manifest.files if there.get(name) == manifest.files[name].sha256]
    return [
        *(_wrong("manifest", _contradictions(manifest)) or [_ok("manifest", described)]),
        *(_wrong("files", files) or [_ok("files", _total(manifest))]),
        *(_wrong("others", others) or ([_ok("others", "no other files")] * strict)),
        *_tensors(folder, manifest, intact),
        *_statement(folder, manifest, intact),
        *_signature(folder, _hashes(there), manifest, key),
    ]


def exit_status(checks: Iterable[Check]) -> int:
    """0: every check passed; 1: a check failed; 2: a check could not be made."""
    states = {each.state for each in checks}
    return 1 if "wrong" in states else 2 if "unknown" in states else 0


def _ok(subject: Subject, text: str) -> Check:
    return Check(subject, "ok", text)


def _wrong(subject: Subject, texts: Iterable[str]) -> list[Check]:
    return [Check(subject, "wrong", text) for text in texts]


# --- the manifest ---


def read_strictly(path: Path) -> Manifest:
    """Read a manifest of this schema version.

    :raises ValueError: with a line for each problem.
    """
    from cattrs import BaseValidationError, transform_error

    def refuse(text: str) -> None:
        raise ValueError(f"{path} contains {text}, which is not valid JSON")

    try:
        content: Any = json.loads(path.read_bytes(), parse_constant=refuse)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON, so it was cut off or edited: {error}") from error
    if not isinstance(content, dict) or not {"schema_version", "files"} <= content.keys():
        raise ValueError(
            f"{path} is not a manifest of this build: expected keys such as `schema_version` and "
            "`files`. Another program seems to have written it."
        )
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path} has schema_version {content['schema_version']!r}, but this build reads "
            f"{SCHEMA_VERSION}. Check the folder with the version that made it, or deploy it again."
        )
    try:
        manifest = structured(content, Manifest)
    except BaseValidationError as error:
        lines = [_in_words(each) for each in transform_error(error, path="")]
        raise ValueError("\n".join(f"{path}: {each}" for each in lines)) from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if json.loads(json.dumps(as_json(manifest))) != content:
        raise ValueError(f"{path} has a key that is null but must be left out")
    return manifest


def _in_words(message: str) -> str:
    """A readable message of cattrs, which writes a dot before a path."""
    return message.replace("unknown error ", "").replace(" @ .", " at ").replace(" @ ", "")


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """The contradictions in a manifest, and names of files that it does not list; pure."""
    for name, file in manifest.files.items():
        if not is_within_folder(name):
            yield f"lists {name!r}, which is not a valid file name"
        if len(file.sha256) != 64 or set(file.sha256) - set("0123456789abcdef") or file.size < 0:
            yield f"lists {name} without a SHA-256 and a size"
    for each in manifest.variants:
        if each.deployed == (each.reason is not None):
            yield f"must give a reason for {each.name} exactly if it is not deployed"
    named = {
        *(file for each in manifest.deployed for file in each.files.values()),
        *(each.file for each in manifest.image_graphs.values()),
        *(manifest.video.files.values() if manifest.video else ()),
    }
    yield from (f"names {name}, but does not list it" for name in sorted(named - {*manifest.files}))
    variants = {each.name for each in manifest.deployed}
    for provider, choice in manifest.recommended.items():
        if choice.variant not in variants:
            yield f"recommends {choice.variant} on {provider}, which is not deployed"


# --- the files ---


def _look(folder: Path) -> dict[str, str | None]:
    """The SHA-256 of each file in a folder and its subfolders; None for a special file or link."""
    there: dict[str, str | None] = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [each for each in folders if each not in BESIDE]
            names = [each for each in names if each not in BESIDE]
        links = [each for each in folders if (here / each).is_symlink()]
        for name in sorted([*names, *links]):
            path = here / name
            plain = path.is_file() and not path.is_symlink()
            there[path.relative_to(folder).as_posix()] = sha256_of(path) if plain else None
    return there


def _hashes(there: Mapping[str, str | None]) -> dict[str, str]:
    """The hashes of the regular files."""
    return {name: sha256 for name, sha256 in there.items() if sha256}


def _total(manifest: Manifest) -> str:
    return f"{amount([each.size for each in manifest.files.values()])}, all as in the manifest"


def _files(folder: Path, manifest: Manifest, there: Mapping[str, str | None]) -> Iterator[str]:
    """The problems of the files that a manifest lists."""
    names = {each.sha256: name for name, each in manifest.files.items()}
    for name, file in manifest.files.items():
        path, sha256 = folder / name, there.get(name)
        if sha256 == file.sha256:
            continue
        if sha256 is not None:
            size = path.stat().st_size
            if sha256 in names:
                yield f"{name} has the content of {names[sha256]}"
            elif size == 0:
                yield f"{name} is empty: expected {file.size:,} bytes"
            elif size != file.size:
                yield f"{name} has {size:,} bytes: expected {file.size:,}"
            else:
                yield f"{name} was changed: expected sha256 {file.sha256}, found {sha256}"
        elif path.is_symlink():
            yield (
                f"{name} is a link to {os.readlink(path)}: expected a file, because a link can "
                "lead to another file later. Check a copy of the folder without links (`cp -rL`)."
            )
        else:
            yield f"{name} is {'not a regular file' if path.exists() else 'missing'}"


def _others(folder: Path, manifest: Manifest, there: Mapping[str, str | None]) -> Iterator[str]:
    """The files in a folder that the manifest does not list."""
    names = {each.sha256: name for name, each in manifest.files.items()}
    for name in sorted(there.keys() - {*manifest.files, MANIFEST, SIGNATURE}):
        content = names.get(there[name] or "")
        copied = f": it has the content of {content}, so it was renamed or copied" * bool(content)
        yield f"{name} is not listed in the manifest{copied}"


# --- the content of the files ---


def _tensors(folder: Path, manifest: Manifest, intact: Iterable[str]) -> Iterator[Check]:
    """Check the inputs and outputs of graphs against the manifest.

    Files that differ from the manifest's are not read, because they can contain anything.
    """
    from tasks.inference.graph_file import tensors_of

    listed_tensors = {
        graph: (each.inputs, each.outputs)
        for graph, each in (
            *manifest.image_graphs.items(),
            *(manifest.video.tensors.items() if manifest.video else ()),
        )
    }
    graphs = {file: graph for each in manifest.deployed for graph, file in each.files.items()}
    count, wrong = 0, 0
    for file, graph in graphs.items():
        if file not in intact or graph not in listed_tensors:
            continue
        try:
            tensors = tensors_of(str(folder / file))
        except ImportError as error:
            yield Check(
                "tensors",
                "unknown",
                f"reading {file} needs the package {error.name}, which is not installed",
            )
            return
        except Exception as error:  # a StageError, or onnxruntime's own
            words = str(error).splitlines()[0]
            yield Check("tensors", "wrong", f"{file} is not a readable graph: {words}")
            wrong += 1
            continue
        count += 1
        for kind, expected, has in (
            ("takes", listed_tensors[graph][0], tensors.inputs),
            ("gives", listed_tensors[graph][1], tensors.outputs),
        ):
            texts = [", ".join(map(str, each)) or "nothing" for each in (has, expected)]
            if texts[0] != texts[1]:
                wrong += 1
                yield Check(
                    "tensors", "wrong", f"{file} {kind} {texts[0]}; the manifest has {texts[1]}"
                )
    if not wrong and count:
        yield _ok("tensors", f"tensors of {count} graphs match the manifest")


def _statement(folder: Path, manifest: Manifest, intact: Iterable[str]) -> Iterator[Check]:
    """Check that the statement of how files were made names these files and this checkpoint."""
    if STATEMENT not in manifest.files or STATEMENT not in intact:
        return
    try:
        wrong = list(_other_subjects(json.loads((folder / STATEMENT).read_bytes()), manifest))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        wrong = [f"{STATEMENT} is not an in-toto statement about these files: {error!r}"]
    yield from _wrong("statement", wrong) or [_ok("statement", f"{STATEMENT} names these files")]


def _other_subjects(statement: Any, manifest: Manifest) -> Iterator[str]:
    """The files, and the checkpoint, that differ between a statement and a manifest; pure."""
    subjects = {each["name"]: each["digest"]["sha256"] for each in statement["subject"]}
    for name in sorted(subjects.keys() | {*manifest.files}):
        listed = manifest.files.get(name)
        if name in signature.ABOUT or subjects.get(name) == (listed and listed.sha256):
            continue
        yield f"{STATEMENT} and the manifest have different hashes of {name}"
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    checkpoints = [each["digest"] for each in materials if each["name"] == "checkpoint"]
    if checkpoints != [{"sha256": manifest.checkpoint.sha256}]:
        yield f"{STATEMENT} and the manifest name different checkpoints"


# --- the signature ---


def _signature(
    folder: Path, hashes: Mapping[str, str], manifest: Manifest | None, key: Path | None
) -> list[Check]:
    """Check that the signature covers exactly these files and, with a key, was made by that key.

    :param hashes: the SHA-256 of each file in the folder.
    """
    path = folder / SIGNATURE
    if not path.exists() and not path.is_symlink():
        if manifest and STATEMENT in manifest.files:
            return _wrong(
                "signature", [f"{SIGNATURE} is missing: a folder with {STATEMENT} is signed"]
            )
        if key is not None:
            return _wrong("signature", [f"not signed; expected a signature by {key}"])
        return [_ok("signature", "not signed")]
    if path.is_symlink() or not path.is_file():
        return _wrong("signature", [f"{SIGNATURE} is not a regular file"])
    listed = {*(manifest.files if manifest else ()), MANIFEST}
    wrong: list[str] = []
    try:
        signed = signature.read(path)
        wrong = list(_other_files(signed.files, hashes, listed))
        if key is not None:
            signature.check_signer(signed, folder, key)
    except signature.CannotCheck as error:
        return [*_wrong("signature", wrong), Check("signature", "unknown", str(error))]
    except signature.OtherFiles as error:
        wrong = wrong or [str(error)]
    except StageError as error:
        wrong = [str(error), *wrong]
    if wrong:
        return _wrong("signature", wrong)
    signer = f"covers these files, by the key {signed.signer[:16]}…"
    if key is None:
        return [_ok("signature", f"{signer}; --key FILE checks whose key it is")]
    return [_ok("signature", f"{signer} of {key}")]


def _other_files(
    signed: Mapping[str, str], there: Mapping[str, str], listed: Iterable[str]
) -> Iterator[str]:
    """The differences between a signature's files and a folder's; pure."""
    names = sorted({*signed, *listed})
    same = [name for name in names if name in signed and there.get(name) == signed[name]]
    if not same:
        yield f"{SIGNATURE} belongs to another folder: it covers none of these files"
        return
    for name in names:
        if name not in signed:
            yield f"{SIGNATURE} does not cover {name}"
        elif name not in there:
            yield f"{SIGNATURE} covers {name}, which is missing"
        elif there[name] != signed[name]:
            yield f"{SIGNATURE} covers another version of {name}"

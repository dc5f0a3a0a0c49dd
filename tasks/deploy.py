"""Stage 8: the proven files where the application serves them, with a manifest.

Targets: ``encoder.onnx``, ``decoder.onnx`` and ``manifest.json`` in the model's deploy folder.
The manifest is written last and holds no time, so a consumer can key its cache on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import browser, checkpoint, child, export, fidelity, ledger, variant, verify
from tasks.browser import Browser
from tasks.checkpoint import Record
from tasks.child import StageError
from tasks.configuration import FP32, Configuration, Model, Variant
from tasks.contract import described
from tasks.files import copy_atomically, mebibytes, write_atomically
from tasks.fingerprint import FINGERPRINTS
from tasks.staleness import Trace, versions

if TYPE_CHECKING:
    from doit.task import Task

SCHEMA_VERSION = 1
PACKAGES = ("sam2", "samexporter", "torch", "onnx", "onnxsim", "onnxruntime")


def task(config: Configuration, model: Model, found: Browser) -> dict[str, Any]:
    """doit's task for one model.

    :param found: what can prove a model in a browser.
    """
    proof = browser.is_part_of_build(model, found)
    return {
        "name": model.name,
        "actions": [(deploy, [config, model, found])],
        "file_dep": [
            *(str(path) for each in model.variants for path in variant.graphs(config, model, each)),
            *map(str, _reports(config, model, proof)),
            str(checkpoint.record_path(config, model)),
            "tasks/deploy.py",
        ],
        "targets": [str(manifest_path(model))],
        "uptodate": [
            Trace({**_traced(model), "browser": proof, **versions(*PACKAGES)}),
            (holds_what_its_manifest_says, [model]),
        ],
        "clean": [(withdraw, [config, model])],
        "io": {"capture": False},
    }


def _reports(config: Configuration, model: Model, proof: bool) -> list[Path]:
    """The reports that decide what is deployed."""
    reports = [verify.report_path(config, model)]
    if proof:
        reports.append(browser.report_path(config, model))
    if model.derived:
        reports += [fidelity.report_path(config, model, each) for each in model.variants]
    if proof:
        reports += [
            browser.report_path(config, model, each) for each in model.variants if each != FP32
        ]
    return reports


def holds_what_its_manifest_says(model: Model) -> bool:
    """Whether every deployed file is as its manifest has it.

    Which files there are is known only once their fidelity is: they are no targets of doit's.
    """
    try:
        files = json.loads(manifest_path(model).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return False
    paths = {name: model.deploy / name for name in files}
    return all(
        path.is_file() and FINGERPRINTS.sha256(path) == files[name]["sha256"]
        for name, path in paths.items()
    )


def manifest_path(model: Model) -> Path:
    """The manifest in a model's deploy folder."""
    return model.deploy / "manifest.json"


def _traced(model: Model) -> dict[str, Any]:
    """What the manifest says of the configuration."""
    return {
        "model": model.name,
        "url": model.source.url,
        "license": model.license,
        "origin": model.origin,
        "variants": [each.name for each in model.variants],
        **export.options(model),
    }


@child.action
def deploy(config: Configuration, model: Model, found: Browser, task: Task) -> dict[str, Any]:
    """Copy what differs, each file whole, and write the manifest.

    A variant that its reports speak against is left out; the manifest says why.
    """
    proof = browser.is_part_of_build(model, found)
    record = checkpoint.read_record(checkpoint.record_path(config, model))
    if record is None:
        raise StageError(f"{checkpoint.record_path(config, model)} cannot be read; remove it")
    entries = [described_variant(config, model, each, proof) for each in model.variants]
    chosen = [
        each for each, entry in zip(model.variants, entries, strict=True) if entry["deployed"]
    ]
    if not chosen:
        reasons = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in entries)
        raise StageError(f"No variant of {model.name} may be deployed: {reasons}")
    model.deploy.mkdir(parents=True, exist_ok=True)
    ledger.add(config, model)  # before the first file: what a killed copy leaves is known
    for leftover in model.deploy.glob(".*.part"):
        leftover.unlink()
    copied = [
        copy_whole(source, model.deploy / source.name)
        for each in chosen
        for source in variant.graphs(config, model, each)
    ]
    files = {
        path.name: {"size": path.stat().st_size, "sha256": FINGERPRINTS.sha256(path)}
        for path in copied
    }
    report = verify.read_report(config, model)
    browsers = json.loads(browser.report_path(config, model).read_text()) if proof else None
    told = manifest(model, record, report, browsers, files, entries)
    text = json.dumps(told, indent=2) + "\n"
    path = manifest_path(model)
    obsolete = ledger.named_files(path).keys() - files.keys() - {path.name}
    if not path.is_file() or path.read_text() != text:
        write_atomically(path, text)
    for name in sorted(obsolete):
        (model.deploy / name).unlink(missing_ok=True)
    summary = f"{_sizes(model, chosen)} in {model.deploy}"
    if proof or model.browser is False:
        return {"summary": summary}
    return {
        "summary": summary,
        "note": f"No browser has proven what was deployed: {found.missing}.",
    }


def copy_whole(source: Path, target: Path) -> Path:
    """Copy a file unless it is there already; the target.

    :raises StageError: when the target does not hold what was copied.
    """
    expected = FINGERPRINTS.sha256(source)
    if not target.is_file() or FINGERPRINTS.sha256(target) != expected:
        copy_atomically(source, target)
    if FINGERPRINTS.sha256(target) != expected:
        raise StageError(
            f"{target} does not hold what was copied there: expected sha256 {expected}, "
            f"found {FINGERPRINTS.sha256(target)}. Check the disk, then run this again."
        )
    return target


def _sizes(model: Model, chosen: list[Variant]) -> str:
    """The sizes of the deployed files, for people: each of fp32, the sum of a variant."""
    texts = []
    for each in chosen:
        paths = [model.deploy / name for name in each.file_names]
        sizes = [mebibytes(path.stat().st_size) for path in paths]
        if each == FP32:
            texts.append(f"encoder {sizes[0]}, decoder {sizes[1]}")
        else:
            texts.append(f"{each.name} {mebibytes(sum(path.stat().st_size for path in paths))}")
    return ", ".join(texts)


def described_variant(
    config: Configuration, model: Model, chosen: Variant, proof: bool
) -> dict[str, Any]:
    """What a manifest says of a variant, deployed or not.

    It is not deployed below its fidelity, or when WASM, which every browser has, refuses it.
    """
    encoder, decoder = chosen.file_names
    entry: dict[str, Any] = {
        "name": chosen.name,
        "precision": chosen.precision,
        "format": chosen.format,
        "encoder": encoder,
        "decoder": decoder,
    }
    reasons = []
    if model.derived:
        measured = json.loads(fidelity.report_path(config, model, chosen).read_text())
        reasons += measured["failures"]
        entry["fidelity"] = {key: measured[key] for key in fidelity.FIGURES}
    if proof:
        report = json.loads(browser.report_path(config, model, chosen).read_text())
        entry["browser"] = browser.proven(report)
        wasm = report["providers"].get("wasm", {})
        if "mask_iou" not in wasm:
            reasons.append("; ".join(report["failures"]))
        else:
            reasons += [each for each in report["failures"] if each.startswith("on wasm")]
    return {
        **entry,
        "deployed": not reasons,
        **({"reason": "; ".join(reasons)} if reasons else {}),
    }


def manifest(
    model: Model,
    record: Record,
    report: dict[str, Any],
    proof: dict[str, Any] | None,
    files: dict[str, Any],
    variants: list[dict[str, Any]],
) -> dict[str, Any]:
    """What a consumer needs to know of the deployed files; pure.

    :param report: of ``verify``.
    :param proof: of ``browser``; None when no browser has run the files.
    :param variants: what there is to say of each; the first that is deployed is the one to load.
    """
    synthetic = record.synthetic
    first = next(each for each in variants if each["deployed"])
    tensors = report["tensors"]
    names = first["encoder"], first["decoder"]
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "model_type": model.model_type,
        "config": str(model.config) if model.config else None,
        "checkpoint": {
            "url": model.source.url,
            "sha256": record.sha256,
            "size": record.size,
            "synthetic": synthetic,
        },
        "license": model.license,
        "origin": "random numbers, not a trained model" if synthetic else model.origin,
        **described(files, tensors["encoder"], tensors["decoder"], names),
        "variants": variants,
        "options": export.options(model),
        "packages": versions(*PACKAGES),
        "verification": {
            "against": "SAM2ImagePredictor (PyTorch), onnxruntime on CPU",
            "tolerances": report["tolerances"],
            **report["figures"],
            **({"truth": report["truth"]} if report["truth"] else {}),
        },
        "browser": proof and browser.proven(proof),
    }


def withdraw(config: Configuration, model: Model, dryrun: bool) -> None:
    """Remove a deployed model: the files its manifest names, and the folder once empty."""
    for deployment in ledger.read(config):
        if deployment.folder == model.deploy:
            for line in ledger.remove(config, deployment, dry_run=dryrun):
                print(line)

"""Stage 6: the proven files where the application serves them, with a manifest.

Targets: ``encoder.onnx``, ``decoder.onnx`` and ``manifest.json`` in the model's deploy folder.
The manifest is written last and holds no time, so a consumer can key its cache on it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import browser, checkpoint, child, export, ledger, simplify, verify
from tasks.browser import Browser
from tasks.checkpoint import Record
from tasks.child import StageError
from tasks.configuration import Configuration, Model
from tasks.contract import described
from tasks.export import Graphs, describe
from tasks.files import copy_atomically, write_atomically
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
    reports = [verify.report_path(config, model)]
    if proof:
        reports.append(browser.report_path(config, model))
    return {
        "name": model.name,
        "actions": [(deploy, [config, model, found])],
        "file_dep": [
            *map(str, simplify.graphs(config, model)),
            *map(str, reports),
            str(checkpoint.record_path(config, model)),
            "tasks/deploy.py",
        ],
        "targets": [*map(str, Graphs.within(model.deploy)), str(manifest_path(model))],
        "uptodate": [Trace({**_traced(model), "browser": proof, **versions(*PACKAGES)})],
        "clean": [(withdraw, [config, model])],
        "io": {"capture": False},
    }


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
        **export.options(model),
    }


@child.action
def deploy(config: Configuration, model: Model, found: Browser, task: Task) -> dict[str, Any]:
    """Copy what differs, each file whole, and write the manifest."""
    sources = simplify.graphs(config, model)
    targets = Graphs.within(model.deploy)
    model.deploy.mkdir(parents=True, exist_ok=True)
    ledger.add(config, model)  # before the first file: what a killed copy leaves is known
    for leftover in model.deploy.glob(".*.part"):
        leftover.unlink()
    for source, target in zip(sources, targets, strict=True):
        expected = FINGERPRINTS.sha256(source)
        if not target.is_file() or FINGERPRINTS.sha256(target) != expected:
            copy_atomically(source, target)
        if FINGERPRINTS.sha256(target) != expected:
            raise StageError(
                f"{target} does not hold what was copied there: expected sha256 {expected}, "
                f"found {FINGERPRINTS.sha256(target)}. Check the disk, then run this again."
            )
    record = checkpoint.read_record(checkpoint.record_path(config, model))
    if record is None:
        raise StageError(f"{checkpoint.record_path(config, model)} cannot be read; remove it")
    report = verify.read_report(config, model)
    proof = None
    if browser.is_part_of_build(model, found):
        proof = json.loads(browser.report_path(config, model).read_text())
    files = {
        path.name: {"size": path.stat().st_size, "sha256": FINGERPRINTS.sha256(path)}
        for path in targets
    }
    text = json.dumps(manifest(model, record, report, proof, files), indent=2) + "\n"
    path = manifest_path(model)
    if not path.is_file() or path.read_text() != text:
        write_atomically(path, text)
    summary = f"{describe(targets)} in {model.deploy}"
    if proof or model.browser is False:
        return {"summary": summary}
    return {
        "summary": summary,
        "note": f"No browser has proven what was deployed: {found.missing}.",
    }


def manifest(
    model: Model,
    record: Record,
    report: dict[str, Any],
    proof: dict[str, Any] | None,
    files: dict[str, Any],
) -> dict[str, Any]:
    """What a consumer needs to know of the deployed files; pure.

    :param report: of ``verify``.
    :param proof: of ``browser``; None when no browser has run the files.
    """
    synthetic = record.synthetic
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
        **described(files, report["tensors"]["encoder"], report["tensors"]["decoder"]),
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

"""Describes how signed files were made (in-toto), and what they consist of (CycloneDX).

The statement follows in-toto, https://in-toto.io/Statement/v1, with SLSA's provenance as predicate,
https://slsa.dev/spec/v1.0/provenance; the bill of materials follows CycloneDX 1.6. Both repeat the
build's records and the manifest, without times. The manifest lists both files, so they cannot
contain its hash; the signature covers all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from tasks.proof.judged_model import JudgedModel
from tasks.proof.manifest import Manifest
from tasks.records.listing import MATERIALS, STATEMENT
from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import versions

PROJECT = "sam2-onnx-build"
BUILDER = f"urn:{PROJECT}"

# SPDX's name of a licence, by the spelling in a configuration.
SPDX = {
    name.lower(): name
    for name in (
        *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "MPL-2.0", "Unlicense"),
        *("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
        *("AGPL-3.0-only", "GPL-3.0-only", "LGPL-3.0-only"),
    )
}

Records = Mapping[str, Mapping[str, Any]]


def texts(
    model: JudgedModel, traces: Records, code: Mapping[str, str], manifest: Manifest
) -> dict[str, str]:
    """The texts of both files, by their names.

    :param traces: the records of each stage behind the deploy.
    :param code: the hash of each module of the deploy itself.
    :param manifest: the manifest, with every other deployed file.
    """
    made = {
        STATEMENT: statement(manifest, traces, code, verdicts(model)),
        MATERIALS: bill_of_materials(manifest),
    }
    return {
        name: json.dumps(content, indent=2, allow_nan=False) + "\n"
        for name, content in made.items()
    }


def verdicts(model: JudgedModel) -> list[dict[str, Any]]:
    """The report of each proof, with its verdict under the current rules."""
    return [
        {
            "name": f"{kind} {each.variant.name}",
            "digest": {
                "sha256": FINGERPRINTS.sha256(model.target.report(kind, each.variant)),
            },
            "annotations": {
                "passed": not each.failing[kind],
                "failures": [str(failure) for failure in each.failing[kind]],
                "files": report["files"],
            },
        }
        for each in model.variants
        for kind, report in each.reports.items()
    ]


def statement(
    manifest: Manifest, traces: Records, code: Mapping[str, str], reports: list[dict[str, Any]]
) -> dict[str, Any]:
    """The statement of how the files of a manifest were made; pure."""
    made = {path for each in traces.values() for path in each.get("outputs", {})}
    read = {
        path: sha256
        for each in traces.values()
        for path, sha256 in each.get("dependencies", {}).items()
        if path not in made
    }
    checkpoint = manifest.checkpoint
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": name, "digest": {"sha256": each.sha256}}
            for name, each in manifest.files.items()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{BUILDER}:deploy:1",
                "externalParameters": {
                    "model": manifest.model,
                    "client": manifest.client,
                    "options": dict(manifest.options),
                    "variants": [each.name for each in manifest.variants],
                },
                "internalParameters": {
                    name: {
                        "inputs": each.get("inputs", {}),
                        **({"measured_by": each["measured_by"]} if "measured_by" in each else {}),
                    }
                    for name, each in traces.items()
                },
                "resolvedDependencies": [
                    {
                        "name": "checkpoint",
                        "uri": checkpoint.url,
                        "digest": {"sha256": checkpoint.sha256},
                    },
                    *_materials({**read, **code}),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {**versions(PROJECT), **manifest.packages}},
                "byproducts": reports,
            },
        },
    }


def _materials(hashes: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    """Files that were read; a module's hash is the hash of its code without comments."""
    for path, sha256 in sorted(hashes.items()):
        algorithm = "pythonCodeSha256" if path.endswith(".py") else "sha256"
        yield {"name": path, "digest": {algorithm: sha256}}


def bill_of_materials(manifest: Manifest) -> dict[str, Any]:
    """The bill of materials of a manifest's files, with their licence; pure."""
    checkpoint = manifest.checkpoint
    first = next(iter(manifest.image_graphs.values()))
    properties = {
        "license": manifest.license or "not stated",
        "origin": manifest.origin or "not stated",
        "checkpoint": checkpoint.url,
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": manifest.model,
                "description": f"ONNX graphs for {manifest.client}",
                **_licenses(manifest),
                "pedigree": {"ancestors": [_weights(manifest)]},
                "modelCard": {
                    "modelParameters": {
                        "task": "image segmentation",
                        "architectureFamily": "Segment Anything",
                        "modelArchitecture": manifest.model_type or str(manifest.config),
                        "inputs": [{"format": str(each)} for each in first.inputs],
                        "outputs": [{"format": str(each)} for each in manifest.decoder.outputs],
                    },
                    "quantitativeAnalysis": {"performanceMetrics": list(_metrics(manifest))},
                    "properties": [
                        {"name": name, "value": value} for name, value in properties.items()
                    ],
                },
            },
        },
        "components": [
            *(
                {
                    "type": "file",
                    "bom-ref": f"file:{name}",
                    "name": name,
                    "hashes": [{"alg": "SHA-256", "content": each.sha256}],
                }
                for name, each in manifest.files.items()
            ),
            *(
                {
                    "type": "library",
                    "bom-ref": f"pkg:pypi/{name}@{version}",
                    "name": name,
                    "version": version,
                    "purl": f"pkg:pypi/{name}@{quote(version)}",
                }
                for name, version in manifest.packages.items()
            ),
        ],
    }


def _licenses(manifest: Manifest) -> dict[str, Any]:
    name = manifest.license
    if not name:
        return {}
    known = SPDX.get(name.lower())
    return {"licenses": [{"license": {"id": known} if known else {"name": name}}]}


def _weights(manifest: Manifest) -> dict[str, Any]:
    """The checkpoint that the graphs were built from."""
    checkpoint = manifest.checkpoint
    return {
        "type": "machine-learning-model",
        "bom-ref": "checkpoint",
        "name": manifest.origin or "checkpoint",
        "hashes": [{"alg": "SHA-256", "content": checkpoint.sha256}],
        **_licenses(manifest),
        "externalReferences": [
            {"type": "distribution", "url": quote(checkpoint.url, safe=":/@?=&+,~%")}
        ],
    }


def _metrics(manifest: Manifest) -> Iterable[dict[str, str]]:
    """The figures of the proofs, for each variant."""
    for each in manifest.deployed:
        for name, figures in (("masks'", each.fidelity), ("tracked masks'", each.tracking)):
            if figures is not None:
                ious = figures.mask_iou
                for kind, value in (("mean", ious.mean), ("worst", ious.worst)):
                    metric = f"{name} IoU with PyTorch's, {kind}"
                    yield {"type": metric, "value": str(value), "slice": each.name}
    truth = manifest.verification.truth if manifest.verification else None
    for prompt, iou in (truth.iou if truth else {}).items():
        yield {"type": "IoU with known masks, mean", "value": str(iou), "slice": prompt}

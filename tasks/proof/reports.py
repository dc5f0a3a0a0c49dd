"""Reports of proofs: which bytes each judged, and which of them a deploy must have.

A report has ``files``, the SHA-256 of each file that it measured, by name; ``against``, that of
what it measured them against (``checkpoint``, ``architecture``, ``reference``); ``asked``, what the
configuration asked to be measured; the figures; and what they were judged to be.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.config.schema import FP32, Configuration, Model, Variant
from tasks.console.invocation import command
from tasks.proof.failures import Failure, as_json
from tasks.records import artifacts
from tasks.records.artifacts import Proof
from tasks.system.files import write_atomically

Report = Mapping[str, Any]


def write(
    path: Path,
    proof: Proof,
    asked: Mapping[str, Any],
    rules: Mapping[str, Any],
    failures: list[Failure],
    figures: Report,
) -> None:
    """Write a report whole.

    :param figures: what the stage measured, with ``files`` and ``against``.
    """
    content = {
        "proof": proof,
        "passed": not failures,
        "failures": as_json(failures),
        "asked": asked,
        "rules": rules,
        **figures,
    }
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read(path: Path) -> Report | None:
    """A report; None when there is none, or what is there is no report."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    known = isinstance(content, dict) and all(
        isinstance(content.get(key), dict) for key in ("files", "against", "asked")
    )
    return content if known else None


def asked(config: Configuration, model: Model, proof: Proof, variant: Variant) -> dict[str, Any]:
    """What the configuration asks to be measured: another answer is another measurement."""
    client = {"client": model.client.name}
    if proof == "verify":
        native = {"images": model.images} if model.image_size else {}
        return {**model.graph_options, **client, **native, "truth": model.truth}
    options = {"masks": model.masks, "prompts": model.prompts, **client}
    if proof == "browser":
        images = {} if variant.precision == "fp32" else {"images": model.images}
        return {**options, "webgpu": model.webgpu, **images}
    if proof == "tracking":
        return {**client, **model.architecture_options}
    return {
        **options,
        **model.architecture_options,
        "images": model.images,
        "count": config.fidelity.images,
    }


@dataclass(frozen=True)
class RequiredReport:
    """A report that a variant cannot be deployed without, and the task that makes it.

    ``against`` is what it must name the hash of, besides the files of its ``graphs``.
    """

    proof: Proof
    path: Path
    task: str
    asked: Mapping[str, Any]
    against: tuple[str, ...]
    graphs: tuple[str, ...]


def required(
    config: Configuration, model: Model, variant: Variant, in_browser: bool
) -> list[RequiredReport]:
    """The reports that must speak for the files of a variant.

    :param in_browser: whether a browser must have run them.
    """
    proofs: list[Proof] = ["verify"] if variant.precision == "fp32" else []
    if variant in model.variants:  # else it is only what the others are made from
        proofs += ["fidelity"] if model.has_smaller_variants else []
        proofs += ["tracking"] if model.video else []
        proofs += ["browser"] if in_browser else []
    return [
        RequiredReport(
            proof,
            artifacts.report(config, model, proof, variant),
            task_name(proof, model, variant),
            asked(config, model, proof, variant),
            _against(model, proof, variant),
            _graphs(model, proof),
        )
        for proof in proofs
    ]


def _graphs(model: Model, proof: Proof) -> tuple[str, ...]:
    """The graphs that a proof speaks for."""
    if proof == "tracking":
        return ("encoder", *model.tracking_graphs)
    return model.all_graphs if proof == "browser" else model.graphs


def of_all_variants(
    config: Configuration, model: Model, browser_missing: str | None
) -> dict[Variant, list[RequiredReport]]:
    """The reports that each variant needs: single precision, then what is to be deployed.

    :param browser_missing: why no browser can run the model; None where one can.
    """
    in_browser = model.browser is True or (model.browser == "auto" and not browser_missing)
    return {
        variant: required(config, model, variant, in_browser)
        for variant in dict.fromkeys([FP32, *model.variants])
    }


def _against(model: Model, proof: Proof, variant: Variant) -> tuple[str, ...]:
    """What a proof measures against; single precision in the browser, against itself alone."""
    subject = ("checkpoint", "architecture") if model.config else ("checkpoint",)
    if proof == "verify":
        return subject
    if proof == "tracking":
        return (*subject, "tracking_reference")
    compared = () if proof == "browser" and variant.precision == "fp32" else (*subject, "reference")
    constants = ("tracking_reference",) if proof == "browser" and model.video else ()
    return (*compared, *constants)


def task_name(proof: Proof, model: Model, variant: Variant) -> str:
    """The task that writes a report: a model's own proofs have its name alone."""
    whole_model = proof == "verify" or (proof == "browser" and variant == FP32)
    return f"{proof}:{model.name}" if whole_model else f"{proof}:{model.name}:{variant.name}"


def binding_problems(
    needed: RequiredReport,
    report: Report | None,
    files: Mapping[Path, str],
    against: Mapping[str, str],
) -> list[str]:
    """Why a report says nothing of some files, a sentence each; pure.

    :param files: the SHA-256 of each file that is to be deployed.
    :param against: the SHA-256 of what there is to measure against.
    """
    if report is None:
        return [
            f"{needed.path} is not there, or is no report of this build; "
            f"{command(needed.task)} makes it"
        ]
    problems = [
        f"{file} is not what {needed.proof} measured: its sha256 is {sha256}, "
        f"{needed.path} has {report['files'].get(file.name, 'none')}; {command(needed.task)} "
        "proves it"
        for file, sha256 in files.items()
        if report["files"].get(file.name) != sha256
    ]
    problems += [
        f"{needed.path} was measured against another {what}: its sha256 was "
        f"{report['against'].get(what, 'not noted')}, is {against[what]}; {command(needed.task)} "
        "measures again"
        for what in needed.against
        if report["against"].get(what) != against[what]
    ]
    problems += [
        f"{needed.path} was asked for {key} {report['asked'].get(key)!r}, the configuration now "
        f"says {value!r}; {command(needed.task)} measures again"
        for key, value in needed.asked.items()
        if report["asked"].get(key) != value
    ]
    return problems

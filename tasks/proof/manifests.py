"""Judges every variant before a deploy, and names what shapes its manifest beside the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.building.staleness import versions
from tasks.config.schema import Configuration, Model, Variant
from tasks.console.invocation import command
from tasks.proof.failures import Failure, sentences
from tasks.proof.judgement import blocks_deployment, judge, rules_of
from tasks.proof.reports import Report, RequiredReport, task_name
from tasks.records.artifacts import Proof
from tasks.system.errors import StageError

# Whose versions a manifest names.
PACKAGES = ("sam2", "samexporter", "torch", "onnx", "onnxsim", "onnxruntime")


@dataclass(frozen=True)
class Judged:
    """A variant with the reports on just its files.

    ``wanted``: the configuration lists it, else others are only made from it. ``files`` have their
    SHA-256; ``failing`` is what the rules find wrong, by proof.
    """

    variant: Variant
    wanted: bool
    files: Mapping[Path, str]
    reports: Mapping[Proof, Report]
    failing: Mapping[Proof, list[Failure]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """What keeps it from being deployed; empty when nothing does."""
        return sentences(
            failure
            for proof, failures in self.failing.items()
            for failure in failures
            if proof != "browser" or blocks_deployment(self.variant, failure)
        )

    @property
    def deployed(self) -> bool:
        """Whether its files are to be deployed."""
        return self.wanted and not self.reason

    def failing_on(self, provider: str) -> list[Failure]:
        """What a provider did wrong."""
        return [each for each in self.failing.get("browser", []) if each.provider == provider]


def judge_variant(
    config: Configuration,
    model: Model,
    variant: Variant,
    files: Mapping[Path, str],
    reports: Mapping[Proof, Report],
    in_browser: bool,
) -> Judged:
    """Judge a variant's reports by the rules that hold now.

    :raises StageError: when a report has not the figures of its proof.
    """
    failing = {}
    for proof, report in reports.items():
        try:
            failures = judge(config, model, variant, proof, report)
        except (KeyError, TypeError, AttributeError) as error:
            task = task_name(proof, model, variant)
            raise StageError(
                f"the {proof} report of {model.name}'s {variant.name} lacks figures "
                f"({type(error).__name__}: {error}); {command(f'forget {task}')} and build again"
            ) from error
        if failures:
            failing[proof] = failures
    return Judged(variant, variant in model.variants, files, reports, failing)


def configured(model: Model) -> dict[str, Any]:
    """The configuration as the manifest repeats it."""
    return {
        "model": model.name,
        "url": model.source.shown,
        "license": model.license,
        "origin": model.origin,
        "client": {**model.client.as_json(), "version": model.client.version},
        "files": [
            model.file_name(graph, each) for each in model.variants for graph in model.all_graphs
        ],
        **model.graph_options,
    }


def inputs(
    config: Configuration, model: Model, needed: Mapping[Variant, Sequence[RequiredReport]]
) -> dict[str, Any]:
    """Everything that shapes a deploy and is in none of the files that it reads.

    :param needed: the reports of each variant; their options and limits are part of it.
    """
    return {
        **configured(model),
        "sha256": model.sha256,
        "variants": [each.name for each in model.variants],
        "proofs": {
            f"{variant.name} {each.proof}": {
                **each.asked,
                **rules_of(config, model, variant, each.proof),
            }
            for variant, reports in needed.items()
            for each in reports
        },
        **versions(*PACKAGES),
    }

"""Judges every variant before a deploy, and names what shapes its manifest beside the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.config.models import ProofKind, Target, Variant
from tasks.console.invocation import command
from tasks.proof.failures import Failure, sentences
from tasks.proof.judgement import blocks_deployment
from tasks.proof.reports import Proof, Report
from tasks.system.errors import StageError
from tasks.system.versions import versions

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
    reports: Mapping[ProofKind, Report]
    failing: Mapping[ProofKind, list[Failure]] = field(default_factory=dict)

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
    target: Target,
    variant: Variant,
    files: Mapping[Path, str],
    proven: Mapping[ProofKind, Report],
) -> Judged:
    """Judge a variant's reports by the rules that hold now.

    :raises StageError: when a report lacks the figures of its proof.
    """
    failing = {}
    for kind, report in proven.items():
        proof = Proof(kind, target, variant)
        try:
            failures = proof.judge(report)
        except (KeyError, TypeError, AttributeError) as error:
            raise StageError(
                f"the {kind} report of {target.name}'s {variant.name} lacks figures "
                f"({type(error).__name__}: {error}); {command(f'forget {proof.task}')} and build "
                "again"
            ) from error
        if failures:
            failing[kind] = failures
    return Judged(variant, variant in target.variants, files, proven, failing)


def configured(target: Target) -> dict[str, Any]:
    """The configuration as the manifest repeats it."""
    source = target.source
    return {
        "model": target.name,
        "url": source.location.shown,
        "license": source.license,
        "origin": source.origin,
        "client": {**target.client.as_json(), "version": target.client.version},
        "files": [name for each in target.variants for name in target.file_names(each).values()],
        **target.graph_options,
    }


def inputs(target: Target, needed: Mapping[Variant, Sequence[Proof]]) -> dict[str, Any]:
    """Everything that shapes a deploy and is in none of the files that it reads.

    :param needed: the proofs of each variant, whose options and rules are among it.
    """
    return {
        **configured(target),
        "sha256": target.source.sha256,
        "variants": [each.name for each in target.variants],
        "proofs": {
            f"{variant.name} {each.kind}": {**each.options, **each.rules}
            for variant, proofs in needed.items()
            for each in proofs
        },
        **versions(*PACKAGES),
    }

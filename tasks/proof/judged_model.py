"""Decides which variants of a model can be deployed, from their files and reports.

It also lists the inputs of a deploy other than files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.config import checkpoint_record
from tasks.config.checkpoint_record import Checkpoint
from tasks.config.models import GraphFiles, ProofKind, Target, Variant
from tasks.console.invocation import command
from tasks.proof import reports
from tasks.proof.failures import Failure, sentences
from tasks.proof.judgement import blocks_deployment
from tasks.proof.reports import Proof, Report
from tasks.system.errors import StageError
from tasks.system.fingerprint import FINGERPRINTS
from tasks.system.versions import versions

# The packages whose versions a manifest names.
PACKAGES = ("sam2", "samexporter", "torch", "onnx", "onnxsim", "onnxruntime")


@dataclass(frozen=True)
class JudgedVariant:
    """A variant with the reports on exactly its files, and the failures in each report.

    ``unproven`` has a sentence for each report that does not count, with the reason.
    """

    target: Target
    variant: Variant
    graphs: GraphFiles
    sha256: Mapping[str, str]
    reports: Mapping[ProofKind, Report]
    failing: Mapping[ProofKind, list[Failure]]
    unproven: Sequence[str]

    @property
    def wanted(self) -> bool:
        """Whether the configuration lists it; if not, it is only the source of other variants."""
        return self.variant in self.target.variants

    @property
    def reason(self) -> str:
        """Why it is not deployed; empty if nothing prevents that."""
        return sentences(
            failure
            for proof, failures in self.failing.items()
            for failure in failures
            if proof != "browser" or blocks_deployment(self.variant, failure)
        )

    @property
    def deployed(self) -> bool:
        """Whether its files are deployed."""
        return self.wanted and not self.reason

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of each graph's file in the deploy folder."""
        return self.target.file_names(self.variant)

    def failing_on(self, provider: str) -> list[Failure]:
        """The failures on a provider."""
        return [each for each in self.failing.get("browser", []) if each.provider == provider]


@dataclass(frozen=True)
class JudgedModel:
    """A model whose variants are judged by their reports.

    :param in_browser: whether a browser must have run it.
    """

    target: Target
    in_browser: bool

    def check(self) -> None:
        """Refuse a model that must not be deployed.

        :raises StageError: when a file differs from the one that its reports measured, a report
            lacks figures, every variant fails, or the configuration names another checkpoint.
        """
        name = self.target.name
        problems = dict.fromkeys(problem for each in self.variants for problem in each.unproven)
        if problems:
            raise StageError(
                f"{name} is not deployed, because its current files are not proven:\n"
                + "\n".join(f"- {problem}" for problem in problems)
            )
        verified = self.variants[0]  # single precision, the source of every other variant
        if verified.failing["verify"]:
            raise StageError(f"{name} is not deployed: {verified.reason}")
        if not self.deployed:
            reasons = "; ".join(f"{each.variant.name}: {each.reason}" for each in self.variants)
            raise StageError(f"{name} is not deployed, because every variant failed: {reasons}")

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that the graphs were built from.

        :raises StageError: when the configuration names another checkpoint.
        """
        source = self.target.source
        built = checkpoint_record.read(source.checkpoint_record)
        if built is None:
            raise StageError(
                f"{source.checkpoint_record} is unreadable. Remove it and build again."
            )
        url = checkpoint_record.identity(source.build, source.location)
        if source.sha256 is not None:
            key, wanted, there = "sha256", source.sha256, built.sha256
        else:
            key, wanted, there = "url", url, built.url
        if wanted != there:
            again = command(f"deploy:{self.target.name}")
            raise StageError(
                f"[models.{source.name}] names the checkpoint with {key} {wanted}, but the graphs "
                f"were built from {there}; {again} without -s builds them again."
            )
        return built

    @cached_property
    def variants(self) -> list[JudgedVariant]:
        """Single precision, even if it is not configured, then the other variants.

        :raises StageError: when a report lacks the figures of its proof.
        """
        return [self._judge(each) for each in self.target.built_variants]

    @cached_property
    def deployed(self) -> list[JudgedVariant]:
        """The variants whose files are deployed."""
        return [each for each in self.variants if each.deployed]

    @cached_property
    def files(self) -> dict[str, tuple[Path, str]]:
        """The files to copy to the deploy folder and their SHA-256, by their names there."""
        return {
            each.names[graph]: (path, each.sha256[graph])
            for each in self.deployed
            for graph, path in each.graphs.items()
        }

    @cached_property
    def _against(self) -> dict[str, str]:
        """The SHA-256 of each file that graphs are compared with; ``missing`` if there is none."""
        source = self.target.source
        paths = {"reference": source.reference, "tracking_reference": source.tracking_reference}
        if source.config is not None:
            paths["architecture"] = Path(source.config)
        there = {
            name: FINGERPRINTS.sha256(path) if path.is_file() else "missing"
            for name, path in paths.items()
        }
        return {"checkpoint": self.checkpoint.sha256, **there}

    def _judge(self, variant: Variant) -> JudgedVariant:
        graphs = self.target.graph_files(variant)
        hashes = {graph: FINGERPRINTS.sha256(path) for graph, path in graphs.items()}
        proven: dict[ProofKind, Report] = {}
        failing: dict[ProofKind, list[Failure]] = {}
        problems = []
        for proof in reports.required(self.target, variant, self.in_browser):
            report = reports.read(proof.path)
            own = {graphs[graph]: hashes[graph] for graph in proof.graphs}
            unproven = proof.problems(report, own, self._against)
            problems += unproven
            if report is not None and not unproven:
                proven[proof.kind] = report
                failing[proof.kind] = judge_report(proof, report)
        return JudgedVariant(self.target, variant, graphs, hashes, proven, failing, problems)


def judge_report(proof: Proof, report: Report) -> list[Failure]:
    """The failures of a report under the current rules.

    :raises StageError: when the report lacks the figures of its proof.
    """
    try:
        return proof.judge(report)
    except (KeyError, TypeError, AttributeError) as error:
        raise StageError(
            f"the {proof.kind} report of {proof.target.name}'s {proof.variant.name} lacks figures "
            f"({type(error).__name__}: {error}); {command(f'forget {proof.task}')} and build again"
        ) from error


def inputs(target: Target, needed: Mapping[Variant, Sequence[Proof]]) -> dict[str, Any]:
    """The inputs of a deploy that are not in the files that it reads.

    :param needed: the proofs of each variant, whose options and rules are inputs too.
    """
    source = target.source
    return {
        "model": target.name,
        "url": source.location.shown,
        "license": source.license,
        "origin": source.origin,
        "client": {**target.client.as_json(), "version": target.client.version},
        "files": [name for each in target.variants for name in target.file_names(each).values()],
        **target.graph_options,
        "sha256": source.sha256,
        "variants": [each.name for each in target.variants],
        "proofs": {
            f"{variant.name} {each.kind}": {**each.options, **each.rules}
            for variant, proofs in needed.items()
            for each in proofs
        },
        **versions(*PACKAGES),
    }

"""Proofs of a model's files: the measurements of each, and its report.

A report has ``files``, the SHA-256 of each measured file, by name; ``against``, the SHA-256 of
what they were compared with (``checkpoint``, ``architecture``, ``reference``); ``options``, the
configured options of the measurement; the figures; and their verdict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.config.models import FP32, ProofKind, Target, Variant
from tasks.console.invocation import command
from tasks.proof.failures import Failure, as_json
from tasks.proof.judgement import judge, rules_of
from tasks.system.errors import StageError
from tasks.system.files import write_atomically

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Proof:
    """The proof of a variant of a model by one stage."""

    kind: ProofKind
    target: Target
    variant: Variant = FP32

    @cached_property
    def path(self) -> Path:
        """The report."""
        return self.target.report(self.kind, self.variant)

    @property
    def task(self) -> str:
        """The task that writes the report; proofs of a whole model have only its name."""
        whole_model = self.kind == "verify" or (self.kind == "browser" and self.variant == FP32)
        variant = "" if whole_model else f":{self.variant.name}"
        return f"{self.kind}:{self.target.name}{variant}"

    @property
    def subtask(self) -> str:
        """The name of the task within its stage."""
        return self.task.partition(":")[2]

    @cached_property
    def options(self) -> dict[str, Any]:
        """The configured options of the measurement; other options need a new measurement."""
        target, source = self.target, self.target.source
        client = {"client": target.client.name}
        if self.kind == "verify":
            native = {"images": source.images} if source.image_size else {}
            return {**target.graph_options, **client, **native, "truth": source.truth}
        if self.kind == "tracking":
            return {**client, **source.architecture_options}
        options = {"masks": target.masks, "prompts": target.prompts, **client}
        if self.kind == "browser":
            images = {"images": source.images} if self.variant.is_smaller else {}
            return {**options, "webgpu": target.webgpu, **images}
        return {
            **options,
            **source.architecture_options,
            "images": source.images,
            "count": source.checks.fidelity.images,
        }

    @property
    def rules(self) -> dict[str, Any]:
        """The rules that judge the figures."""
        return rules_of(self.target, self.variant, self.kind)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs of the report, besides the measured files."""
        return {**self.options, **self.rules, "contract": self.target.client.as_json()}

    @property
    def graphs(self) -> tuple[str, ...]:
        """The graphs that it measures."""
        if self.kind == "tracking":
            return ("encoder", *self.target.source.tracking_graphs)
        return self.target.all_graphs if self.kind == "browser" else self.target.graphs

    @property
    def subjects(self) -> tuple[str, ...]:
        """What files are compared with; in a browser, single precision only with itself."""
        source = self.target.source
        pytorch = ("checkpoint", "architecture") if source.config else ("checkpoint",)
        if self.kind == "verify":
            return pytorch
        if self.kind == "tracking":
            return (*pytorch, "tracking_reference")
        by_itself = self.kind == "browser" and not self.variant.is_smaller
        constants = ("tracking_reference",) if self.kind == "browser" and source.video else ()
        return (*(() if by_itself else (*pytorch, "reference")), *constants)

    def judge(self, report: Report) -> list[Failure]:
        """The failures of a report under the current rules; see `judgement.judge`."""
        return judge(self.target, self.variant, self.kind, report)

    def conclude(self, figures: Report) -> list[Failure]:
        """Judge figures, and write the report, also if they fail.

        :param figures: the stage's measurements, with ``files`` and ``against``.
        """
        failures = self.judge(figures)
        self.write(figures, failures)
        return failures

    def write(self, figures: Report, failures: list[Failure]) -> None:
        """Write the report whole."""
        content = {
            "proof": self.kind,
            "passed": not failures,
            "failures": as_json(failures),
            "options": self.options,
            "rules": self.rules,
            **figures,
        }
        write_atomically(self.path, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def error(self, problem: str, failures: list[Failure], log: Path) -> StageError:
        """The error of a stage whose figures fail."""
        lines = "\n".join(f"- {failure}" for failure in failures)
        return StageError(
            f"{self.path.parent}: {problem}; not deployed:\n{lines}\n"
            f"Report: {self.path}. Log: {log}"
        )

    def problems(
        self, report: Report | None, files: Mapping[Path, str], against: Mapping[str, str]
    ) -> list[str]:
        """Why a report does not apply to some files, a sentence each; pure.

        :param files: the SHA-256 of each file to deploy.
        :param against: the current SHA-256 of what files are compared with.
        """
        again = command(self.task)
        if report is None:
            return [f"{self.path} is missing, or is not a report of this build; {again} writes it"]
        problems = [
            f"{file} differs from the file that {self.kind} measured: its sha256 is {sha256}, "
            f"{self.path} has {report['files'].get(file.name, 'none')}; {again} proves it"
            for file, sha256 in files.items()
            if report["files"].get(file.name) != sha256
        ]
        problems += [
            f"{self.path} was measured against another {what}: its sha256 was "
            f"{report['against'].get(what, 'not recorded')}, now it is {against[what]}; {again} "
            "measures again"
            for what in self.subjects
            if report["against"].get(what) != against[what]
        ]
        problems += [
            f"{self.path} was measured with {key} {report['options'].get(key)!r}, the "
            f"configuration now has {value!r}; {again} measures again"
            for key, value in self.options.items()
            if report["options"].get(key) != value
        ]
        return problems


def read(path: Path) -> Report | None:
    """Read a report; None if the file is missing, or is anything else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    is_report = isinstance(content, dict) and all(
        isinstance(content.get(key), dict) for key in ("files", "against", "options")
    )
    return content if is_report else None


def required(target: Target, variant: Variant, in_browser: bool) -> list[Proof]:
    """The proofs that a variant needs to be deployed.

    :param in_browser: whether a browser must have run it.
    """
    kinds: list[ProofKind] = [] if variant.is_smaller else ["verify"]
    if variant in target.variants:  # otherwise it is only the source of other variants
        kinds += ["fidelity"] if target.has_smaller_variants else []
        kinds += ["tracking"] if target.source.video else []
        kinds += ["browser"] if in_browser else []
    return [Proof(kind, target, variant) for kind in kinds]


def of_all_variants(target: Target, browser_missing: str | None) -> dict[Variant, list[Proof]]:
    """The proofs that each variant needs.

    :param browser_missing: why no browser can run the model; None if a browser can.
    """
    in_browser = target.browser is True or (target.browser == "auto" and not browser_missing)
    return {each: required(target, each, in_browser) for each in target.built_variants}

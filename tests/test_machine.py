"""How a processor is identified, and what is proven again on another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from project import Outcome, Project

from tasks.system import machine

MODEL = (
    "[browser]\nenabled = false\n"
    '[models.tiny]\nmodel_type = "sam2_hiera_tiny"\nurl = "synthetic:"\n'
    'variants = ["fp32", "q8"]\n'
)
PROOFS = {"verify:tiny", "reference:tiny", "fidelity:tiny:fp32", "fidelity:tiny:q8"}


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        ("fpu sse4_2 avx2 fma smep", {"avx2", "fma"}),
        ("avx512f avx512_vnni avx_vnni", {"avx512f", "avx512_vnni", "avx_vnni"}),
        ("amx_tile amx_int8 amx_bf16", {"amx_tile", "amx_int8", "amx_bf16"}),
        ("fp asimd aes asimddp i8mm bf16 sve2", {"asimd", "asimddp", "i8mm", "bf16", "sve2"}),
        ("FEAT_DotProd FEAT_I8MM FEAT_SME2 FEAT_CRC32", {"dotprod", "i8mm", "sme2"}),
        ("", set()),
    ],
)
def test_only_processor_flags_that_affect_results_are_kept(flags: str, features: set[str]) -> None:
    assert machine.parse(flags.split()) == features


def test_the_processor_is_identified_by_system_and_architecture() -> None:
    system, architecture, *_ = machine.processor().split()
    assert (system, architecture) == (os.uname().sysname, os.uname().machine)


@pytest.fixture
def built(project: Project) -> Project:
    project.configure(MODEL)
    succeeded(project.build(CHEAP_PROCESSOR="Linux x86_64 avx2"))
    return project


def succeeded(outcome: Outcome) -> set[str]:
    assert outcome.status == 0, outcome.output
    return outcome.ran


def test_moving_a_build_to_another_processor_reruns_only_the_proofs(
    built: Project,
) -> None:
    assert succeeded(built.build(CHEAP_PROCESSOR="Linux x86_64 avx2")) == set()
    status = built.doit("status", "tiny", CHEAP_PROCESSOR="Linux x86_64 avx512_vnni")
    assert "processor was Linux x86_64 avx2, is Linux x86_64 avx512_vnni" in status.output
    again = succeeded(built.build(CHEAP_PROCESSOR="Linux x86_64 avx512_vnni"))
    assert again == PROOFS
    assert succeeded(built.build(CHEAP_PROCESSOR="Linux x86_64 avx512_vnni")) == set()


def test_a_model_proven_on_another_processor_is_not_published(
    built: Project, tmp_path: Path
) -> None:
    built.configure(
        MODEL.replace("synthetic:", "tiny.pt") + 'license = "MIT"\n[publish]\nrepo = "a/b"\n'
    )
    (built.root / "tiny.pt").write_bytes(b"weights")
    succeeded(built.build(CHEAP_PROCESSOR="Linux x86_64 avx2"))
    outcome = built.doit("-s", "publish:tiny", CHEAP_PROCESSOR="Linux x86_64 avx512_vnni")
    assert outcome.status != 0
    assert "verify:tiny: processor was Linux x86_64 avx2" in outcome.output

"""The features of a machine's processor that change measured figures.

Quantized products differ in their last bits, and now and then in a mask, between a processor with
AMX, VNNI or AVX-512 and one without.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from functools import cache

# For x86: vectors, and products of 8 and 16 bits; for ARM: the same, with Linux's or macOS's names.
_CHANGES_RESULTS = re.compile(
    r"(amx|avx|f16c|fma|xop|advsimd|asimd|dotprod|e?bf16|fcma|fhm|fp16|fphp|i8mm|sme(?!p)|sve)"
)


def parse(flags: Iterable[str]) -> frozenset[str]:
    """The flags of a processor that change results, with the system's names; pure."""
    names = (flag.lower().removeprefix("feat_") for flag in flags)
    return frozenset(name for name in names if _CHANGES_RESULTS.match(name))


@cache
def processor() -> str:
    """The system, the architecture and the features of this machine, as one word each."""
    system = os.uname()
    flags = _of_macos() if system.sysname == "Darwin" else _of_linux()
    return " ".join([system.sysname, system.machine, *sorted(parse(flags))])


def _of_linux() -> list[str]:
    """The flags of the first processor; listing all of a large machine takes long."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return value.split()
    return []


def _of_macos() -> list[str]:
    """The features that ``sysctl hw.optional`` lists: ``hw.optional.arm.FEAT_I8MM: 1``."""
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "hw.optional"], capture_output=True, text=True, check=False
        )
    except OSError:
        return []
    lines = [line.rpartition(": ") for line in done.stdout.splitlines()]
    return [name.rpartition(".")[2] for name, _, value in lines if value.strip() != "0"]

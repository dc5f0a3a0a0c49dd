"""How much of a worker a stage takes: its memory, its cores, a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.system.errors import StageError

# Bytes for a stage that never ran: so much, and so many for each byte of its largest input.
# The 856 MiB of large's weights make 4.3 GiB for its export, which takes 4.1.
LEAST_MEMORY = 1 << 30
MEMORY_PER_BYTE = 4
MARGIN = 1.1  # more than at the last run


def resources_for(
    name: str,
    recorded: Mapping[str, Any],
    needs: Sequence[str],
    largest_input: int,
    workers: Sequence[Mapping[str, float]],
) -> dict[str, float]:
    """The resources that a stage takes of one worker; pure.

    Only such that a worker declares: Dask would wait for ever for anything else.

    :param recorded: what the stage's last run returned: ``peak_memory``, ``cores``.
    :param needs: further resources, one of each.
    :param largest_input: in bytes.
    :param workers: the resources that each worker declares.
    :raises StageError: when its last run took more memory than any worker has.
    """
    declared = {resource for each in workers for resource in each}
    wanted = {resource: 1.0 for resource in needs if resource in declared}
    able = [each for each in workers if all(each.get(resource, 0) >= 1 for resource in wanted)]
    if "memory" in declared:
        most = max((each.get("memory", 0) for each in able), default=0)
        last = recorded.get("peak_memory")
        guess = LEAST_MEMORY + MEMORY_PER_BYTE * largest_input
        memory = MARGIN * last if last else guess
        if needs:
            memory = max(memory, guess)  # the peak is that of a child, not of its browser
        if last and memory > most and not needs:
            raise StageError(
                f"{name} needs {_gibibytes(memory)} of memory ({_gibibytes(last)} at its last "
                f"run), and no worker declares more than {_gibibytes(most)}. Start one with more: "
                f'`dask worker ... --resources "memory={math.ceil(memory / 1e9)}e9"`.'
            )
        wanted["memory"] = min(memory, most)
        able = [each for each in able if each.get("memory", 0) >= wanted["memory"]]
    if "cores" in declared:
        cores = max(1, math.ceil(recorded.get("cores") or 1))
        wanted["cores"] = min(cores, max((each.get("cores", 0) for each in able), default=0))
    return wanted


def _gibibytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"

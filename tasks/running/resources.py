"""The resources of a worker that a stage takes: memory, cores, a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.system.errors import StageError

# Bytes for a stage that never ran: a base, and a factor for each byte of its largest input. They
# give 4.3 GiB for the export of large's 856 MiB of weights, which takes 4.1.
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
    """The resources that a stage takes from one worker; pure.

    They include only resources that a worker declares: Dask would wait forever for others.

    :param recorded: the values of the stage's last run: ``peak_memory``, ``cores``.
    :param needs: further resources, one unit of each.
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
            memory = max(memory, guess)  # the recorded peak excludes the child's browser
        if last and memory > most and not needs:
            raise StageError(
                f"{name} needs {_gibibytes(memory)} of memory ({_gibibytes(last)} in its last "
                f"run), but no worker declares more than {_gibibytes(most)}. Start one with more: "
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

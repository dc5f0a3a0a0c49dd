"""The time of the last command that ran a stage, for `doit status`."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from tasks.system.files import write_record


def _file(build: Path) -> Path:
    return build / "state" / "last_build.json"


def write(build: Path, stages: int, seconds: float) -> None:
    """Write the record; on a full disk the older record stays."""
    record = {"stages": stages, "seconds": seconds, "ended": time.strftime("%Y-%m-%d %H:%M")}
    with suppress(OSError):
        write_record(_file(build), json.dumps(record))


def describe(build: Path) -> str | None:
    """The record as a sentence; None if there is none."""
    try:
        record = json.loads(_file(build).read_text())
        minutes, seconds = divmod(round(record["seconds"]), 60)
        duration = f"{minutes} min {seconds} s" if minutes else f"{record['seconds']:.1f} s"
        stages = "1 stage" if record["stages"] == 1 else f"{record['stages']} stages"
        return f"Last build: {stages} in {duration}, ended {record['ended']}."
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Functions that `tests/test_child.py` runs in child processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.system.errors import StageError


@dataclass(frozen=True)
class Graph:
    path: Path
    opset: int = 20


@dataclass(frozen=True)
class Request:
    graphs: Mapping[str, Graph]
    attention: Literal["plain", "fused"]
    sides: tuple[int, ...]
    names: tuple[tuple[str, float], ...] = ()
    truth: Path | None = None


def show_request(request: Request):
    return {"text": repr(request)}


def add(a, b):
    print("adding")
    return {"sum": a + b}


def show(text):
    print(text)
    return {}


def wait_policy():
    return {"policy": os.environ["OMP_WAIT_POLICY"]}


def refuse():
    raise StageError("expected 1, found 2")


def crash():
    raise ZeroDivisionError("a bug")


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def hold(fifo):
    with Path(fifo).open("w"):
        threading.Event().wait()


def fill(path):
    print("x" * 200_000, flush=True)
    Path(path).write_bytes(bytes(200_000))


def much(size):
    return {"text": "x" * size}

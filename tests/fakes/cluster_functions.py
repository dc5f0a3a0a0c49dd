"""What children of the stages in `cluster_dodo` run, on a worker or beside the build."""

import os
import sys
import threading
import time
from pathlib import Path

from tasks.system.errors import StageError


def make(destination):
    """Tell which process started this one: a worker, or the build."""
    print("making it")
    Path(destination).write_text(f"{os.getppid()} {sorted(os.environ)}")
    return {"started_by": os.getppid(), "heavy": sorted({"distributed"} & set(sys.modules))}


def double(destination, source):
    """Read what another stage made, which need not lie where that stage left it."""
    print(f"reading {source}")
    Path(destination).write_text(2 * Path(source).read_text())
    return {"started_by": os.getppid()}


def refuse(destination):
    raise StageError("expected 1, found 2")


def hold(destination, fifo, once=None):
    """Write half of it, open the FIFO and wait to be ended; make it whole the second time."""
    if once is not None and os.path.exists(once):
        return make(destination)
    Path(destination).write_text("half")
    if once is not None:
        Path(once).write_text(str(os.getppid()))
    with Path(fifo).open("w"):
        threading.Event().wait()
    raise AssertionError("nobody waits for ever")


def alone(destination, folder):
    """Be the only one that its worker runs, for a while."""
    place = Path(folder) / str(os.getppid())
    place.touch(exist_ok=False)
    time.sleep(0.2)
    place.unlink()
    return make(destination)


def work(destination, seconds):
    time.sleep(seconds)
    return make(destination)

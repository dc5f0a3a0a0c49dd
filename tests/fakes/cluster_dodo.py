"""Stages for `tests/test_cluster.py` that run as the project's own do; what they run is quick.

The environment variable STAGES has them in JSON, by name: the ``function`` of `cluster_functions`
that a child runs, its ``arguments``, what it ``needs``, and the files that it ``reads``.
"""

import json
import os

from dodo import CONFIG, DOIT_CONFIG
from tasks.building.stage import declare, workspace

DOIT_CONFIG["default_tasks"] = ["stage"]


def act(target, function, arguments, task):
    with workspace(CONFIG.build, task) as work:
        made = work.unfinished(target)
        result = work.run(f"cluster_functions:{function}", destination=made, **arguments)
        work.deliver(target)
    return {**result, "summary": "made"}


def task_stage():
    for name, stage in json.loads(os.environ["STAGES"]).items():
        target = CONFIG.build / "made" / name
        yield declare(
            name,
            act,
            [target, stage["function"], stage.get("arguments", {})],
            reads=stage.get("reads", []),
            writes=[target],
            inputs={},
            meta={"needs": stage.get("needs", [])},
        )

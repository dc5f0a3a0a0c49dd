"""Quick stages for `tests/test_cluster.py` that run as the project's own stages do.

The environment variable STAGES has them in JSON, by name: the ``function`` of `cluster_functions`
that a child runs, its ``arguments``, what it ``needs``, and the files that it ``reads``.
"""

import json
import os

from dodo import BUILD, CONFIG, DOIT_CONFIG
from tasks.building.stage import Stage

DOIT_CONFIG["default_tasks"] = ["stage"]


def act(target, function, arguments, work):
    made = work.unfinished(target)
    result = work.run(f"cluster_functions:{function}", destination=made, **arguments)
    work.deliver(target)
    return {**result, "summary": "made"}


def task_stage():
    for name, stage in json.loads(os.environ["STAGES"]).items():
        target = CONFIG.build / "made" / name
        declared = Stage(
            name,
            act,
            [target, stage["function"], stage.get("arguments", {})],
            reads=stage.get("reads", []),
            writes=[target],
            inputs={},
            browser=dict if "browser" in stage.get("needs", []) else None,
        )
        yield BUILD.task(declared)

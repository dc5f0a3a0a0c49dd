"""The page's scripts: their types, and their own tests in Node.js."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from project import ROOT


@pytest.mark.parametrize("script", ["test", "check"])
def test_the_web_scripts_pass_their_tests_and_type_check(npm_packages: None, script: str) -> None:
    npm = shutil.which("npm")
    assert npm
    done = subprocess.run(
        [npm, "run", "--silent", script],
        cwd=ROOT / "web",
        env={**os.environ, "CI": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""`make demo` after its installation: the whole of scripts/demo, as a newcomer sees it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_ends_with_a_right_answer_and_where_everything_is(repository, tmp_path):
    folder = Path(sys.executable).parent
    if shutil.which("linne", path=folder) is None:
        pytest.skip("the command `linne` is not installed beside this Python: pip install -e .")
    (tmp_path / "scripts").symlink_to(repository / "scripts")
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    demo = [sys.executable, "scripts/demo"]
    ended = subprocess.run(demo, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    *_, verdict, report, plots, bundle = ended.stdout.splitlines()
    assert verdict == "# the scan shows a 4; linne says 4: right"
    assert (tmp_path / report.split()[1]).is_file()
    assert (tmp_path / plots.split()[1] / "confusion.png").is_file()
    assert (tmp_path / bundle.split()[1] / "bundle.json").is_file()

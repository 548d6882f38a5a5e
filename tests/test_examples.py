"""Every example and benchmark runs, from the command line, in its quick form."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent / "examples"
SCRIPTS = [path for path in sorted(TOP.rglob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(TOP).as_posix())
def test_quick(path, tmp_path):
    command = [sys.executable, "-W", "error", str(path), "--quick"]
    if "benchmarks" not in path.parts:
        command += ["--out", str(tmp_path)]
    # Without the compiler's alarm at what takes it long, as anything may on a busy machine.
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == "", "silent when not a terminal"
    for picture in tmp_path.iterdir():
        assert picture.stat().st_size > 1000


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(TOP).as_posix())
def test_a_misspelt_option_gets_a_line_and_no_traceback(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--quik"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    assert stop.value.code == 2
    assert "--quik" in capsys.readouterr().err

"""Every example and benchmark runs, from the command line, in its quick form."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent / "examples"
SCRIPTS = [path for path in sorted(TOP.rglob("*.py")) if '__name__ == "__main__"' in path.read_text()]


BENCHMARKS = [path for path in SCRIPTS if "benchmarks" in path.parts]  # which start processes of their own
EXAMPLES = [path for path in SCRIPTS if path not in BENCHMARKS]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(TOP).as_posix())


def program(path, *options):
    """The exit status of a script that is run as a program; what it imports is imported once for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *options])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
    return stop.value.code


@each(EXAMPLES)
def test_quick_example(path, tmp_path, capfd):
    assert program(path, "--quick", "--out", str(tmp_path)) == 0
    said, alarms = capfd.readouterr()
    assert said.strip()
    assert alarms == "", "silent when not a terminal"
    for picture in tmp_path.iterdir():
        assert picture.stat().st_size > 1000


@each(BENCHMARKS)
def test_quick_benchmark(path):
    command = [sys.executable, "-W", "error", str(path), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == "", "silent when not a terminal"


@each(SCRIPTS)
def test_a_misspelt_option_gets_a_line_and_no_traceback(path, capsys):
    assert program(path, "--quik") == 2
    assert "--quik" in capsys.readouterr().err

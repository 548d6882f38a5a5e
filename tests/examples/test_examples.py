"""Every example and benchmark runs from the command line, with --quick."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bias_variance import decomposed
from support.regularisation_pictures import Quadratic, least_on_diamond, least_on_disc

import fnnets as fn

TOP = Path(__file__).parents[2] / "examples"
SCRIPTS = [
    path
    for folder in ("studies", "benchmarks")
    for path in sorted((TOP / folder).glob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]


START = sorted((TOP / "start").glob("*.py"))
BENCHMARKS = [path for path in SCRIPTS if "benchmarks" in path.parts]  # these start processes of their own
EXAMPLES = [path for path in SCRIPTS if path not in BENCHMARKS]


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(TOP).as_posix())


def program(path, *options):
    """The exit status of a script that runs as a program, in this process: its imports are cached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *options])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(path), run_name="__main__")
    return stop.value.code


@each(START)
def test_start(path, capfd):
    assert path.read_text().count("\n") <= 60
    runpy.run_path(str(path), run_name="__main__")
    said, alarms = capfd.readouterr()
    assert said.strip()
    assert alarms == ""


@each(EXAMPLES)
def test_quick_example(path, tmp_path, capfd):
    assert program(path, "--quick", "--out", str(tmp_path)) == 0
    said, alarms = capfd.readouterr()
    assert said.strip()
    assert alarms == "", "it writes no progress bar without a terminal"
    for picture in tmp_path.iterdir():
        assert picture.stat().st_size > 1000


def benchmarks():
    """Two of them without --full: all share the same harness."""
    for path in BENCHMARKS:
        marks = [] if path.stem in ("feedforward", "convolution") else [pytest.mark.full]
        yield pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", list(benchmarks()))
def test_quick_benchmark(path):
    command = [sys.executable, "-W", "error", str(path), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == "", "it writes no progress bar without a terminal"


@each(SCRIPTS)
def test_a_misspelt_option_prints_a_message_without_a_traceback(path, capsys):
    assert program(path, "--quik") == 2
    assert "--quik" in capsys.readouterr().err


def test_bias_variance_and_noise_add_up_to_the_error():
    random = np.random.default_rng(0)
    predictions = 0.5 + random.normal(size=(4, 20_000))  # off by ½, variance 1
    observed = 2 * random.normal(size=(7, 20_000))  # variance 4
    error, *parts = decomposed(predictions, observed)
    np.testing.assert_allclose(sum(parts), error, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose([part.mean() for part in parts], (0.25, 1, 4), atol=0.05)


@pytest.mark.parametrize(("least", "penalty"), [(least_on_disc, fn.l2), (least_on_diamond, fn.l1)])
@pytest.mark.parametrize("share", [0.01, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_a_penalty_and_its_constraint_have_the_same_minimum(least, penalty, share, seed):
    random = np.random.default_rng(seed)
    root = random.normal(size=(3, 2))
    loss = Quadratic(root.T @ root, random.normal(size=2), 0.0)
    free = np.linalg.solve(loss.hessian, loss.c)
    np.testing.assert_allclose(least(loss, 10 * np.abs(free).sum()), free)

    w = least(loss, share * np.abs(free).max())
    slope = loss.slope(w)
    rate = np.abs(slope).max() if penalty is fn.l1 else np.linalg.norm(slope) / np.linalg.norm(w)
    pull = np.asarray(penalty(1.0, on=True).backward(np.float32(w)))
    smooth = w != 0  # at 0, |w| has a corner: its slope is any number from -1 to 1
    np.testing.assert_allclose(slope[smooth], -rate * pull[smooth], rtol=1e-5)
    assert smooth.all() or np.abs(slope[~smooth]) <= rate

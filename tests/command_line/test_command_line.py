"""`python -m fnnets compare` as a user runs it: good and bad targets, exit statuses, files."""

import json
import subprocess
import sys
import textwrap

import pytest

from fnnets import catalogue
from fnnets.command_line import main

RIGHT = """
    import fnnets as fn, jax.numpy as jnp, numpy as np
    layer = fn.serial(fn.dense(3), fn.tanh())
    wrong = layer._replace(backward=lambda *given: (layer.backward(*given)[0], -layer.backward(*given)[1], None))
    with_input = (fn.embedding(4, 2), np.array([1, 3]))
    alone = fn.embedding(4, 2)
    f = (lambda w, x: jnp.sum((x @ w) ** 2), lambda w, x: 2 * x.T @ (x @ w), (np.ones(3), np.ones((2, 3))))
    pictures = fn.serial(fn.flatten(3), fn.reshape((12, 9)))
    number = 3
    vector = (lambda w: w, lambda w: w, np.ones(3))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(RIGHT))
    return path


@pytest.mark.quick
def test_the_catalogue_is_compared_and_reported(capsys, tmp_path):
    assert main(["compare", "--only", "dense, no*", "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert "dense, no bias" in out
    assert "2 rows, 5 leaves" in out
    assert "all agree; worst error" in out.splitlines()[-1]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["ok"]
    assert [report["row"] for report in found["reports"]] == ["dense, no bias", "dense, no batch"]


def test_a_mismatch_in_the_catalogue_is_reported(capsys, monkeypatch):
    case = next(case for case in catalogue.cases() if case.name == "tanh")
    wrong = case.layer._replace(backward=lambda params, saved, dy, dcarry=None: ((), dy, None))
    monkeypatch.setattr(catalogue, "cases", lambda: [case, catalogue.layer_case("wrong", wrong, case.x)])
    assert main(["compare"]) == 1
    out = capsys.readouterr().out
    assert "1 MISMATCH: wrong" in out.splitlines()[-1]
    assert "the derivative f' is missing" in out


@pytest.mark.parametrize(
    ("name", "status"), [("layer", 0), ("wrong", 1), ("with_input", 0), ("f", 0), ("pictures", 0)]
)
def test_a_users_targets_are_compared(file, name, status, capsys):
    assert main(["compare", f"{file}:{name}"]) == status
    out = capsys.readouterr().out
    assert ("all gradients agree" in out) == (status == 0)
    assert ("has the wrong sign" in out) == (status == 1)


def test_the_shape_option_sets_the_shape_of_x(file, capsys):
    assert main(["compare", f"{file}:layer", "--shape", "7,2"]) == 0
    assert "2×3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py:layer"], "there is no file nowhere.py"),
        (["{file}:missing"], "has no missing; it has layer, wrong"),
        (["{file}"], "must be path/to/file.py:name or module:name"),
        (["{file}:number"], "expected a Layer, (layer, x), (layer, params, x) or (f, grad, args), got int"),
        (["{file}:vector"], "f must return a scalar, got shape (3,)"),
        (["{file}:alone"], "give --shape, or name a tuple (layer, x)"),
        (["no.such.module:layer"], "cannot be imported: ModuleNotFoundError"),
        (["--only", "nothing like it"], "no row of the catalogue has a name like this"),
        (["--json", "/no/such/folder/found.json"], "there is no folder /no/such/folder"),
    ],
)
def test_bad_targets_get_one_line_and_status_2(file, arguments, says, capsys):
    assert main(["compare", *(argument.format(file=file) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err


def test_a_file_that_cannot_be_imported_is_reported(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("1 / 0")
    assert main(["compare", f"{tmp_path / 'broken.py'}:layer"]) == 2
    assert "broken.py cannot be imported: ZeroDivisionError: division by zero" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys; sys.exit(3)", "cannot be imported: SystemExit: 3"),
        (
            "layer = fn.layer(lambda k, x: {}, lambda p, x: p['w'], print, print)",
            "does not accept x of shape",
        ),
        ("layer = (lambda w: 1 / 0, lambda w: w, 1.0)", "ZeroDivisionError: division by zero"),
    ],
)
def test_an_error_in_the_users_code_gets_one_line(tmp_path, capsys, text, says):
    (tmp_path / "mine.py").write_text(f"import fnnets as fn\n{text}")
    assert main(["compare", f"{tmp_path / 'mine.py'}:layer"]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_bad_options_are_argparse_errors(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compare", "--shape", "four"])
    assert stopped.value.code == 2
    assert "must be whole numbers with commas" in capsys.readouterr().err


def test_an_interruption_keeps_the_finished_rows(capsys, monkeypatch, tmp_path):
    cases = catalogue.cases()

    class Interrupting:
        name = "interrupting"

        def compare(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(catalogue, "cases", lambda: [cases[1], Interrupting(), cases[0]])
    assert main(["compare", "--json", str(tmp_path / "found.json")]) == 130
    assert "interrupted after 1 of 3 rows" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "found.json").read_text())["reports"]) == 1


@pytest.mark.quick
def test_it_runs_as_a_program():
    command = [sys.executable, "-W", "error", "-m", "fnnets", "compare", "--only", "identity"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 rows, 1 leaves" in done.stdout
    done = subprocess.run([*command[:5], "compare", "x.py:y"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "fnnets compare: there is no file x.py\n"

"""The public names: generated from the packages' lists, none removed, and new ones in the change log."""

import inspect
import re
from pathlib import Path

import contents
import pytest

import fnnets as fn

TOP = Path(__file__).parent.parent
FILES = contents.written()
SPACES = [getattr(fn, name) for name in contents.SPACES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_generated_files_are_up_to_date(path):
    assert path.read_text() == FILES[path], (
        f"{path.relative_to(TOP)} is out of date: run `{contents.COMMAND}`"
    )


def test_every_name_of_the_last_release_remains():
    for name in (TOP / "tests" / "public_names.txt").read_text().split():
        found = fn
        for part in name.split(".")[1:]:
            assert hasattr(found, part), f"{name} is missing: put it back, users call it"
            found = getattr(found, part)


def test_every_new_name_is_in_the_change_log():
    released = set((TOP / "tests" / "public_names.txt").read_text().split())
    log = (TOP / "fnnets" / "CHANGELOG.md").read_text()
    missing = [name for name in contents.public_names() if name not in released and f"`{name}`" not in log]
    assert not missing, f"fnnets/CHANGELOG.md lacks {', '.join(missing)}: add a line on what they are for"


@pytest.mark.parametrize("module", [fn, *SPACES], ids=lambda module: module.__name__)
def test_a_star_import_brings_the_public_names_and_no_inner_module(module):
    space: dict = {}
    exec(f"from {module.__name__} import *", space)
    if hasattr(module, "__all__"):
        assert {name for name in space if name != "__builtins__"} == set(module.__all__)
    inner = [name for name in module.__dict__.get("__all__", ()) if inspect.ismodule(space[name])]
    assert set(inner) <= set(contents.SPACES)


def test_help_lists_the_functions_by_group():
    lines = " ".join(fn.__doc__.split())
    for group in contents.GROUPS:
        assert f"{contents.titled(group, '')}: {', '.join(contents.functions_of(group))}" in lines


def test_the_version_is_written_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fn.__version__)
    project = (TOP / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in project
    assert '[tool.hatch.version]\npath = "fnnets/core/version.py"' in project
    assert not re.search(r"^version\b", project, re.MULTILINE)

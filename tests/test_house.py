"""The house rules: public names are documented, derivations use no autodiff, and imports only lead downward."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import fnnets as fn

TOP = Path(__file__).parent.parent
SOURCES = sorted((TOP / "fnnets").rglob("*.py"))
LAYERS = ("fnnets.combinators", "fnnets.layers", "fnnets.losses", "fnnets.trees")
# From the ground up: a folder imports only from itself and from those before it.
FLOORS = (
    "core", "layers", "combinators", "rnn", "trees", "losses", "gradients", "insight", "comparison", "updaters", "data",
    "saving", "train", "plots", "catalogue", "command_line",
)  # fmt: skip
AUTODIFF = {
    "vjp",
    "grad",
    "value_and_grad",
    "jvp",
    "linearize",
    "linear_transpose",
    "jacrev",
    "jacfwd",
    "hessian",
}


def public_names():
    for module in (fn, fn.losses, fn.updaters, fn.data, fn.train):
        prefix = module.__name__.removeprefix("fnnets").removeprefix(".") + "."
        for name in module.__all__:
            value = getattr(module, name)
            if not name.startswith("_") and not inspect.ismodule(value):
                yield pytest.param(value, id=(prefix + name).removeprefix("."))


def arguments_of(function):
    """The names of a function's arguments; for `**run: Unpack[RunOptions]`, the names of the keywords."""
    for name, parameter in inspect.signature(function).parameters.items():
        keywords = ()
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords = typing.get_args(typing.get_type_hints(function)[name])
        yield from keywords[0].__annotations__ if keywords else [name]


@pytest.mark.parametrize("value", list(public_names()))
def test_every_public_name_is_documented(value):
    text = inspect.getdoc(value) or ""
    assert len(text.splitlines()[0]) > 10
    if inspect.isfunction(value):
        assert "Example:" in text, "it has an example that runs"
        assert "Returns:" in text or "Raises:" in text
        assert all(name in text for name in arguments_of(value)), "it describes every argument"


@pytest.mark.parametrize("value", list(public_names()))
def test_every_layer_and_loss_gives_its_formula_and_derivation(value):
    home = getattr(value, "__module__", "")
    if not inspect.isfunction(value) or not home.startswith(LAYERS):
        return
    if home in (
        "fnnets.layers.convolution.geometry",
        "fnnets.trees.padded_trees",
    ):  # these return sizes or arrays, not layers
        return
    text = inspect.getdoc(value)
    assert "Formula:" in text
    assert "Derivation:" in text
    assert re.search(r"\bd[xyw]\b", text), "the derivation gives dx (a loss: dy, a penalty: dw)"


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_source(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module has a docstring"
    assert text.count("\n") <= 400, "a file holds one concept"
    assert "jax._src" not in text
    assert "jax.config.update" not in text
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [name for name in defined if not name.startswith("_")] != [path.stem], "name the module _<name>.py"
    for function in functions(tree):
        if "backward" in function.name or "tangent" in function.name:
            used = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
            assert not used & AUTODIFF, f"{function.name} uses autodiff: derive it by hand"


def module_of(path):
    return ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path) for path in SOURCES}


def imports_of(path):
    """The library's modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fnnets"):
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else node.module for name in names)


def floor_of(module):
    """The index in FLOORS of a module's folder; None for the package itself and `__main__`."""
    name = module.split(".")[1] if "." in module else ""
    return FLOORS.index(name) if name not in ("", "__main__") else None


def test_no_import_leads_upward():
    for path in SOURCES:
        own = floor_of(module_of(path))
        if own is None:
            continue
        upward = [
            name
            for name in imports_of(path)
            if name != "fnnets" and (floor := floor_of(name)) is not None and floor > own
        ]
        assert not upward, f"{module_of(path)} imports {', '.join(upward)}"


def test_the_package_holds_few_folders():
    files = (TOP / "fnnets").iterdir()
    top = {path.name for path in files if path.name not in ("__pycache__", "CHANGELOG.md")}
    assert len(top - {"py.typed", "__init__.py", "__main__.py"}) <= 18
    assert {name.removesuffix(".py") for name in top} - {"py.typed", "__init__", "__main__"} == set(FLOORS)


@pytest.mark.parametrize(
    "name", sorted(MODULES - {"fnnets.__main__"})
)  # importing __main__ runs the command line
def test_no_function_hides_a_module(name):
    importlib.import_module(name)
    found = fn
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    assert inspect.ismodule(found), f"{name} is {found}"


def test_only_its_own_package_imports_a_private_module():
    for path in SOURCES:
        package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
        for name in imports_of(path):
            home, _, leaf = name.rpartition(".")
            assert not leaf.startswith("_") or leaf == "__main__" or home == package, f"{path}: {name}"


def test_there_are_no_import_cycles():
    known = {module_of(path): set(imports_of(path)) for path in SOURCES}
    while ready := [name for name, used in known.items() if not used]:
        for name in ready:
            del known[name]
        known = {name: used - set(ready) for name, used in known.items()}
    assert not known, f"an import cycle among {sorted(known)}"


@pytest.mark.quick
def test_importing_is_cheap_and_does_not_configure_jax():
    program = """
import jax, optax, sys
before, x64 = set(sys.modules), jax.config.jax_enable_x64
import fnnets
new = {name.split(".")[0] for name in set(sys.modules) - before}
assert new <= {"fnnets", "jax"} | set(sys.stdlib_module_names), new  # jax.extend among them
assert not {"fnnets.catalogue", "fnnets.command_line"} & set(sys.modules)
assert jax.config.jax_enable_x64 == x64
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the README saves files
    blocks = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    assert blocks
    space: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), space)


def test_the_readme_has_two_set_up_commands():
    section = (TOP / "README.md").read_text().split("<!-- set-up -->")[1].split("<!-- end of set-up -->")[0]
    commands = [line for line in section.splitlines() if line.startswith("python3 ")]
    assert len(commands) == 2
    assert commands[0].endswith("-m fnnets compare")
    assert commands[1].endswith("-m pytest")


def test_the_repositorys_top_folder_holds_nothing_else():
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=False)
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= {
        "pyproject.toml", "README.md", "LICENSE", "fnnets", "tests", "examples",
    }  # fmt: skip

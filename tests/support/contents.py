"""The public names by group: generates fnnets' top level, every `__all__` and README's table from the packages.

A name is public if a package's `__init__` imports it. `python tests/support/contents.py` writes what follows from that:
`fnnets/__init__.py`, the `__all__` of each package that users import from, and the table. A test fails if one of them is
out of date. `python tests/support/contents.py --names` prints every public name, for `tests/public_names.txt`.
"""

import ast
import functools
import re
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]
COMMAND = "python tests/support/contents.py"
WIDTH = 110
REST = ""  # all names of a list that no other group names


class Group(NamedTuple):
    """A line of the table: names at the top level, or the names of one module used as `fn.module`."""

    title: str
    names: dict[str, str]  # {module: its names, or REST}
    note: str = ""  # README's note after the names


GROUPS = (
    Group("layers", {"layers": REST}),
    Group("activations", {"layers.activations": REST}),
    Group("recurrent", {"rnn": REST}),
    Group(
        "over time",
        {
            "layers.pooling": "last mean_over_time max_over_time",
            "rnn": "length_mask pad_sequences shift_right generate",
            "gradients": "truncated_bptt",
        },
    ),
    Group("trees", {"trees": REST}),
    Group("images", {"layers.convolution": REST, "layers.pooling": REST}),
    Group("normalisation", {"layers.normalisation": REST}),
    Group("networks", {"combinators": REST}),
    Group("losses", {"losses": REST}),
    Group("penalties", {"losses.penalties": REST}),
    Group("updaters", {"updaters": REST}, "each an optax `GradientTransformation`"),
    Group("curvature", {"gradients.curvature": REST}),
    Group("gradients", {"gradients": REST}),
    Group("forward mode by hand", {"gradients": "rtrl"}, "the `tangent` of `dense` `tanh` `lstm` `serial`"),
    Group("comparison", {"comparison": REST}),
    Group("your own", {"core.layer": "layer Layer Info Static", "rnn": "Cell"}),
    Group(
        "params",
        {
            "core.parameters": "count_params freeze kernels trainable zero_carry Stats",
            "saving": "load save",
        },
    ),
    Group("data", {"data": REST}),
    Group("training", {"train": REST}),
    Group("insight", {"insight": REST}),
    Group("plots", {"plots": REST}),
)
NAMESPACES = ("losses", "updaters", "gradients.curvature", "data", "train", "plots")  # used as fn.losses, …
SPACES = tuple(module.rpartition(".")[2] for module in NAMESPACES)


def path_of(module: str) -> Path:
    """The file of a module, or the `__init__` of a package."""
    path = TOP.joinpath("fnnets", *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def listed(module: str) -> list[str]:
    """The names that a package imports as themselves, or that a module defines."""
    body = ast.parse(path_of(module).read_text()).body
    if path_of(module).name == "__init__.py":
        aliases = [alias for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
        return [alias.name for alias in aliases if alias.name == alias.asname]
    found = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [name for name in found if not name.startswith("_")]


def place_of(group: Group) -> str:
    """The text between `fn.` and a name of the group."""
    module = next(iter(group.names))
    return f"{module.rpartition('.')[2]}." if module in NAMESPACES else ""


@functools.cache
def by_group() -> dict[str, dict[str, list[str]]]:
    """{title of the group: {module: names}}, each name once."""
    named = {
        (module, name) for group in GROUPS for module, names in group.names.items() for name in names.split()
    }
    return {
        group.title: {
            module: names.split() or [name for name in listed(module) if (module, name) not in named]
            for module, names in group.names.items()
        }
        for group in GROUPS
    }


def by_module() -> dict[str, list[str]]:
    """{module: the names that the top level imports from it}."""
    found: dict[str, list[str]] = {}
    for module in NAMESPACES:
        parent, _, name = module.rpartition(".")
        found.setdefault(parent, []).append(name)
    for group in GROUPS:
        if not place_of(group):
            for module, names in by_group()[group.title].items():
                found.setdefault(module, []).extend(names)
    return found


def public_names() -> list[str]:
    """Every public name, as users write it."""
    top = [f"fn.{name}" for names in by_module().values() for name in names]
    spaces = {module: f"fn.{module.rpartition('.')[2]}" for module in NAMESPACES}
    return sorted(top + [f"{spaces[module]}.{name}" for module in NAMESPACES for name in listed(module)])


def in_order(names: list[str]) -> list[str]:
    """CONSTANTS, Classes, functions: ruff's order of imports and of `__all__`."""
    return sorted(names, key=lambda name: (2 if name[0].islower() else 1 - name.isupper(), name))


def functions_of(group: Group) -> list[str]:
    """The names that the table shows of a group: its functions, and the types that users build on."""
    names = [name for names in by_group()[group.title].values() for name in names]
    return in_order([name for name in names if name.islower() or group.title == "your own"])


def types() -> list[str]:
    """The types at the top level: params, and what functions return."""
    shown = {name for group in GROUPS if not place_of(group) for name in functions_of(group)}
    return in_order(
        [name for names in by_module().values() for name in names if name not in shown | set(SPACES)]
    )


def titled(group: Group, code: str) -> str:
    """The title, with the namespace of the names."""
    place = place_of(group).rstrip(".")
    return f"{group.title}, in {code}fn.{place}{code}" if place else group.title


def table() -> str:
    """The table in README."""
    rows = ["| | |", "|---|---|"]
    for group in GROUPS:
        names = " ".join(f"`{name}`" for name in functions_of(group))
        rows.append(f"| {titled(group, '`')} | {names}{'; ' + group.note if group.note else ''} |")
    return "\n".join([*rows, f"| types | {' '.join(f'`{name}`' for name in types())} |"])


def docstring() -> str:
    """The top level's docstring, with which `help(fn)` begins."""
    groups = {titled(group, ""): functions_of(group) for group in GROUPS} | {"types": types()}
    lines = [
        textwrap.fill(f"{title}: {', '.join(names)}", WIDTH, subsequent_indent="  ")
        for title, names in groups.items()
    ]
    return (
        '"""Functional neural networks in JAX, with gradients derived by hand and compared with autodiff.\n\n'
        "`import fnnets as fn`. Contents:\n\n" + "\n".join(lines) + '\n"""'
    )


def imports() -> str:
    """The top level's imports, one per line, in ruff's order."""
    homes = {f"fnnets.{module}".rstrip("."): in_order(names) for module, names in by_module().items()}
    homes["fnnets.core.version"] = ["__version__"]
    return "\n".join(
        f"from {home} import {name} as {name}" for home, names in sorted(homes.items()) for name in names
    )


def dunder_all(names: list[str]) -> str:
    """An `__all__`, on one line or on filled lines."""
    items = ", ".join(f'"{name}"' for name in in_order(names))
    if len(items) + len("__all__ = []") <= WIDTH:
        return f"__all__ = [{items}]"
    return f"__all__ = [\n{textwrap.indent(textwrap.fill(items + ',', WIDTH - 4), '    ')}\n]  # fmt: skip"


def top_level() -> str:
    """The text of `fnnets/__init__.py`."""
    names = [name for names in by_module().values() for name in names]
    warning = f"# Written by `{COMMAND}`. To add a name, add it to its package's list."
    return f"{docstring()}\n\n{warning}\n\n{imports()}\n\n{dunder_all([*names, '__version__'])}\n"


def written() -> dict[Path, str]:
    """{file: its text}, for every generated file."""
    files = {path_of(""): top_level()}
    for module in NAMESPACES:
        rest = re.sub(
            r"\n+__all__ = \[.*?\](  # fmt: skip)?\n", "", path_of(module).read_text(), flags=re.DOTALL
        )
        if path_of(module).name == "__init__.py":
            files[path_of(module)] = f"{rest.rstrip()}\n\n{dunder_all(listed(module))}\n"
    readme = TOP / "README.md"
    start, end = "<!-- contents -->\n", "\n<!-- end of contents -->"
    before, after = readme.read_text().split(start)
    return files | {readme: before + start + table() + end + after.split(end)[1]}


if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        print("\n".join(public_names()))
    else:
        for path, text in written().items():
            path.write_text(text)

"""Plants common mistakes in every gradient of the catalogue, and counts which checks notice them.

    python examples/benchmarks/planted_mistakes.py            # every row
    python examples/benchmarks/planted_mistakes.py --quick    # a few rows

Each mistake goes into one leaf of one row at a time. The table counts how many mistakes `fn.compare` flags, how
many it names correctly, and how many `jax.test_util.check_grads` (with its defaults, reverse mode, in float32)
and, if torch is installed, `torch.autograd.gradcheck` (with its defaults, float64) flag.
"""

from __future__ import annotations

import argparse
import collections
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from fnnets import catalogue
from fnnets.comparison.measurement import Problem, measure

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
from mistakes import ByHand, Planted, compare_verdict, planted  # the tests plant these too


def check_grads_flags(problem: Problem, by_hand: ByHand) -> bool:
    """Whether jax's own check, with its defaults and in float32, rejects the derivation."""
    point, fixed, dy = jax.tree.map(_float32, (problem.point, problem.fixed, problem.dy))
    del dy

    @jax.custom_vjp
    def f(point: Any) -> Any:
        return problem.plain(point, fixed)

    def backward(point: Any, dy: Any) -> Any:
        gradient = by_hand(point, fixed, dy)[1]
        return ({name: gradient.get(name) for name in point},)

    f.defvjp(lambda point: (f(point), point), backward)
    try:
        jax.test_util.check_grads(f, (point,), order=1, modes=["rev"])
    except Exception:  # an AssertionError for a mismatch, a TypeError for a gradient of another shape
        return True
    return False


def _float32(leaf: Any) -> Any:
    return np.asarray(leaf, np.float32) if getattr(leaf, "dtype", None) == np.float64 else leaf


def _same_shape(gradient: Any, leaf: Any) -> None:
    if jnp.shape(gradient) != jnp.shape(leaf):
        raise ValueError(f"a gradient of shape {jnp.shape(gradient)} for a leaf of {jnp.shape(leaf)}")


def gradcheck_flags(torch: Any, problem: Problem, by_hand: ByHand) -> bool:
    """Whether torch's check, with its defaults and in float64, rejects the derivation."""
    vector, unravel = ravel_pytree(problem.point)
    plain = jax.jit(problem.plain)
    _, unravel_y = ravel_pytree(plain(problem.point, problem.fixed))

    class Function(torch.autograd.Function):  # type: ignore[name-defined,misc]
        @staticmethod
        def forward(context: Any, flat: Any) -> Any:
            context.save_for_backward(flat)
            found = plain(unravel(flat.detach().numpy()), problem.fixed)
            return torch.from_numpy(np.array(ravel_pytree(found)[0]))

        @staticmethod
        def backward(context: Any, dy: Any) -> Any:
            (flat,) = context.saved_tensors
            gradient = by_hand(unravel(flat.numpy()), problem.fixed, unravel_y(dy.numpy()))[1]
            # Torch checks shapes; flattened, the transpose of one row would look correct.
            jax.tree.map(_same_shape, gradient, {name: problem.point[name] for name in gradient})
            return torch.from_numpy(np.array(ravel_pytree(gradient)[0]))

    try:
        return not torch.autograd.gradcheck(
            Function.apply, torch.tensor(np.array(vector), requires_grad=True)
        )
    except Exception:
        return True


NOTHING = "nothing (control)"


QUICK = ("dense, square", "tanh", "softmax")


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; the exit status is 1 if compare misses a mistake."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=f"only the rows {', '.join(QUICK)}")
    options = parser.parse_args(arguments)
    try:
        import torch
    except ImportError:
        torch = None
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    cases = [case for case in catalogue.cases() if not options.quick or case.name in QUICK]
    for case in tqdm(cases, unit="row", disable=not sys.stderr.isatty()):
        with jax.enable_x64(True):
            problem = case.problem(0)
            measured = measure(problem)
            found = list(planted(case, problem))
            found.append(Planted(case.name, NOTHING, "", jax.jit(problem.by_hand), (), ""))
            for mistake in found:
                flagged, named, _ = compare_verdict(mistake, problem, measured)
                counts[mistake.mistake].update(planted=1, flagged=flagged, named=named)
                if torch is not None:
                    counts[mistake.mistake]["gradcheck"] += gradcheck_flags(torch, problem, mistake.by_hand)
        for mistake in found:
            counts[mistake.mistake]["check_grads"] += check_grads_flags(problem, mistake.by_hand)
    _print(dict(counts), torch is not None)
    missed = any(row["flagged"] < row["planted"] for name, row in counts.items() if name != NOTHING)
    return int(missed or counts[NOTHING]["flagged"] > 0)


def _print(counts: dict[str, collections.Counter[str]], with_torch: bool) -> None:
    columns = ["planted", "flagged", "named", "check_grads", *(["gradcheck"] if with_torch else [])]
    heads = ["planted", "compare flags", "and names right", "check_grads flags", "gradcheck flags"]
    control, total = counts.pop(NOTHING), collections.Counter[str]()
    for row in counts.values():
        total.update(row)
    print(f"{'mistake':24}" + "".join(f"{head:>19}" for head in heads[: len(columns)]))
    for name, row in [*counts.items(), ("all", total), (NOTHING, control)]:
        print(f"{name:24}" + "".join(f"{row[column]:>19}" for column in columns))
    shares = ", ".join(
        f"{head} {total[c] / total['planted']:.1%}" for c, head in zip(columns[1:], heads[1:], strict=False)
    )
    print(f"of {total['planted']} planted mistakes: {shares}")


if __name__ == "__main__":
    sys.exit(main())

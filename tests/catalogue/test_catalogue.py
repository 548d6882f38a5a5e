"""Every row of the catalogue × every property that a layer must have."""

import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue_rows import CASES, FEWER, LAYERS, QUICK, SOME, at, rows

import fnnets as fn
from fnnets import catalogue
from fnnets.comparison import float_trees
from fnnets.comparison.measurement import measure
from fnnets.comparison.verdict import judge


def dy_like(y, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(y.shape), y.dtype)


def hand(case, params, x, dy, **mode):
    _, _, saved = case.layer.forward(params, x, **mode)
    dparams, dx, _ = case.layer.backward(params, saved, dy)
    return dparams, dx


def both(case, params, x, **mode):
    """The output, and the gradient by hand of its sum."""
    y, _, _ = case.layer.forward(params, x, **mode)
    return y, hand(case, params, x, jnp.ones_like(y), **mode)


@functools.cache
def compiled(name):
    """Compiles `both` of a row once for all tests: (params, x, key) → (y, gradients)."""
    (case,) = [case for case in LAYERS if case.name == name]
    train, mask = case.mode["train"], case.mode["mask"]
    return jax.jit(lambda params, x, key: both(case, params, x, key=key, train=train, mask=mask))


def close(a, b, tolerance):
    chex.assert_trees_all_close(a, b, rtol=tolerance, atol=tolerance)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


# A function's annotation says what it makes. Those in OF_THE_CALLERS wrap what the caller passes.
KINDS = ("Layer", "Cell", "Loss", "Penalty", "optax.GradientTransformationExtraArgs")
OF_THE_CALLERS = ("layer", "recurrent", "by_hand", "freeze")
LISTS = {"fn": fn, "fn.losses": fn.losses, "fn.updaters": fn.updaters}
FACTORIES = {
    f"{place}.{name}": getattr(module, name)
    for place, module in LISTS.items()
    for name in module.__all__
    if getattr(getattr(module, name), "__annotations__", {}).get("return") in KINDS
    and name not in OF_THE_CALLERS
}
ROWS = {name for case in CASES for name in case.factories()}
ROWS |= {case.factory.__name__ for case in catalogue.updater_cases()}


def test_the_factories_are_found():
    assert {"fn.dense", "fn.gru", "fn.tree_lstm", "fn.losses.mse", "fn.l2", "fn.updaters.newton"} <= set(
        FACTORIES
    )


@pytest.mark.quick
@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_has_a_row(name):
    factory = FACTORIES[name]
    home = factory.__module__.split(".")[1:]  # ["layers", "activations", "rectifiers"]
    kinds = {path.stem for path in Path(catalogue.__file__).parent.glob("*.py")}
    file = next((part for part in reversed(home) if part in kinds), home[0])
    assert factory.__name__ in ROWS, (
        f"{name} has no row in the catalogue: add one beside those in fnnets/catalogue/{file}.py"
    )


def test_updater_rows_are_named_after_their_factories():
    names = [case.name for case in catalogue.updater_cases()]
    assert len(set(names)) == len(names)
    assert all(case.name.split()[0] == case.factory.__name__ for case in catalogue.updater_cases())


@rows(CASES, quick=QUICK)
def test_hand_equals_autodiff_and_differences_on_50_seeds(case):
    with jax.enable_x64(True):
        for seed in range(50):
            problem = case.problem(seed)
            report = judge(problem, measure(problem))
            assert report.ok, f"seed {seed}\n{report}"
            assert report.worst_autodiff <= 1e-11
            assert report.worst_difference <= 1e-7


@rows(LAYERS, everyday=SOME)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_dtype_stays(case, dtype):
    params, x, mode = at(case, dtype=dtype)
    assert jax.eval_shape(functools.partial(case.layer.apply, **mode), params, x).dtype == dtype
    y, (dparams, dx) = jax.eval_shape(functools.partial(both, case, **mode), params, x)
    assert y.dtype == dtype
    chex.assert_trees_all_equal_shapes_and_dtypes(dparams, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(dx, float_trees.split(x)[0])


@rows([case for case in LAYERS if not case.name.startswith("branch")], everyday=SOME)
def test_params_decide_the_dtype(case):
    params, x, mode = at(case)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    y, (dparams, dx) = jax.eval_shape(functools.partial(both, case, **mode), params, x)
    assert y.dtype == (jnp.bfloat16 if jax.tree.leaves(params) else x.dtype)
    chex.assert_trees_all_equal_shapes_and_dtypes(dparams, params)
    chex.assert_trees_all_equal_shapes_and_dtypes(dx, float_trees.split(x)[0])


@rows(FEWER, everyday=SOME)
def test_jit_changes_nothing(case):
    params, x, mode = at(case)
    close(compiled(case.name)(params, x, mode["key"]), both(case, params, x, **mode), 2e-5)


@rows([case for case in FEWER if jax.tree.leaves(at(case)[0])], everyday=SOME)
def test_vmap_over_params(case):
    (params, x, mode), (other, _, _) = at(case, 0), at(case, 1)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), params, other)
    run = functools.partial(both, case, x=x, **mode)
    together = jax.jit(jax.vmap(lambda params: run(params)))(stacked)
    for i, own in enumerate((params, other)):
        alone = compiled(case.name)(own, x, mode["key"])
        close(jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, 1e-4)


@rows([case for case in FEWER if not case.mode["train"] and "no batch" not in case.name], everyday=SOME)
def test_vmap_over_examples(case):
    params, x, mode = at(case)
    mask = jax.tree.map(jnp.asarray, mode["mask"])
    y, (dparams, dx) = compiled(case.name)(params, x, mode["key"])
    each = jax.vmap(
        lambda x, mask: both(case, params, x, mask=mask), in_axes=(0, None if mask is None else 0)
    )
    ys, (dparams_each, dx_each) = jax.jit(each)(x, mask)
    close(ys, y, 1e-5)
    close(dx_each, dx, 1e-4)
    close(jax.tree.map(lambda leaf: leaf.sum(0), dparams_each), dparams, 1e-4)


@rows(LAYERS, everyday=SOME)
def test_init_matches_its_abstract_shapes(case):
    params, x, _ = at(case)
    shape = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), x)
    promised = jax.eval_shape(lambda key: case.layer.init(key, shape), jax.random.key(0))
    chex.assert_trees_all_equal_structs(params, promised)
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.jit(case.layer.init)(jax.random.key(0), x), promised)


@rows(FEWER, everyday=SOME)
def test_backward_is_linear_in_dy(case):
    with jax.enable_x64(True):
        params, x, mode = at(case, dtype=np.float64)
        y = jax.eval_shape(functools.partial(case.layer.apply, **mode), params, x)
        first, second = dy_like(y, 1), dy_like(y, 2)
        run = jax.jit(lambda dy: hand(case, params, x, dy, **mode))
        mixed = jax.tree.map(lambda a, b: 2.0 * a - 3.0 * b, run(first), run(second))
        close(run(2.0 * first - 3.0 * second), mixed, 1e-12)


@rows(FEWER, everyday=SOME)
def test_by_hand_is_the_derivative_in_jax_and_compiles_once(case):
    layer, traced = fn.by_hand(case.layer), []

    @functools.partial(jax.jit, static_argnames="chosen")
    def gradient(params, x, key, dy, chosen):
        traced.append(chosen)
        net = layer if chosen == "hand" else case.layer
        pull = jax.vjp(lambda params: net.apply(params, x, **(case.mode | {"key": key})), params)[1]
        return pull(dy)[0]

    for seed in range(3):
        params, x, mode = at(case, seed)
        dy = dy_like(jax.eval_shape(functools.partial(case.layer.apply, **mode), params, x), seed)
        by_hand, plain = (gradient(params, x, mode["key"], dy, chosen) for chosen in ("hand", "plain"))
        close(by_hand, plain, 1e-4)
    assert traced == ["hand", "plain"]

"""JAX transformations of a network at a point: the columns of a table whose rows are networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec

import fnnets as fn
from fnnets import catalogue
from fnnets.comparison import float_trees


class At(NamedTuple):
    """Where a network is differentiated: trees of floats, and directions of the same shapes."""

    point: Any  # {"params", "x"}, and "carry" where there is one
    other: Any  # another point
    fixed: Any  # inputs without a gradient: integers, the mask, the key
    v: Any  # directions
    u: Any


def at(case, seed=0):
    """A random point for a row of the catalogue; needs float64."""
    rng = np.random.default_rng(seed)
    x = case.x(rng)

    def draw():
        params = catalogue.random_params(case.layer, rng, x)
        floats = float_trees.split(x)[0]
        point = {"params": params, "x": jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), floats)}
        if case.carried:
            point["carry"] = catalogue.random_like(fn.zero_carry(case.layer, params, x), rng)
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), point)

    point = draw()
    key = jax.random.key(seed) if case.mode["train"] else None
    fixed = {"x": float_trees.split(x)[1], "mask": case.mode["mask"], "key": key}
    v, u = (catalogue.random_like(point, rng) for _ in range(2))
    return At(point, draw(), jax.tree.map(jnp.asarray, fixed), *jax.tree.map(jnp.asarray, (v, u)))


def function(case, layer, fixed):
    """The layer as a function from a point to one vector of all its outputs."""
    mode = {"train": case.mode["train"], "mask": fixed["mask"], "key": fixed["key"]}

    def run(point):
        x = float_trees.join(point["x"], fixed["x"])
        if case.carried:
            return ravel_pytree(layer.forward(point["params"], x, point["carry"], **mode)[:2])[0]
        return layer.apply(point["params"], x, **mode).ravel()

    return run


def dot(a, b):
    return sum(jnp.vdot(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def weights(y):
    return jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)


def energy(f):
    def of(point):
        y = f(point)
        return jnp.sum(weights(y) * (y + 0.5 * y**2))

    return of


def flat(f, point):
    vector, unravel = ravel_pytree(point)
    return lambda vector: f(unravel(vector)), vector


def jacobian(transform):
    def column(f, at):
        f, vector = flat(f, at.point)
        return transform(f)(vector)

    return column


def hessian(transform):
    return lambda f, at: jacobian(transform)(energy(f), at)


def linearize(f, at):
    y, push = jax.linearize(f, at.point)
    return y, push(at.v), push(at.u)


def vjp(f, at):
    y, pull = jax.vjp(f, at.point)
    return y, pull(weights(y))


def jvp_of_grad(f, at):
    return jax.jvp(jax.grad(energy(f)), (at.point,), (at.v,))[1]


def grad_of_grad(f, at):
    return jax.grad(lambda point: dot(jax.grad(energy(f))(point), at.v))(at.point)


def grad_of_jvp(f, at):
    return jax.grad(lambda point: jax.jvp(energy(f), (point,), (at.v,))[1])(at.point)


def jvp_of_jvp(f, at):
    once = lambda point: jax.jvp(f, (point,), (at.v,))[1]
    return jax.jvp(once, (at.point,), (at.u,))


def over(names, axis):
    """vmap over the named parts of the point, along an axis."""

    def column(f, at):
        mapped = {name: name in names for name in at.point}
        axes = {
            name: jax.tree.map(lambda leaf: axis if leaf.ndim else 0, part) if mapped[name] else None
            for name, part in at.point.items()
        }
        pick = lambda name: at.point[name] if not mapped[name] else stacked(name)

        def stacked(name):
            stack = lambda place, *leaves: jnp.stack(leaves, place)
            return jax.tree.map(stack, axes[name], at.point[name], at.other[name])

        points = {name: pick(name) for name in at.point}
        each = lambda point: (jax.grad(energy(f))(point), jax.jvp(f, (point,), (at.v,))[1])
        together = lambda points: jnp.sum(jax.vmap(energy(f), (axes,), axis_size=2)(points))
        return (
            jax.vmap(each, (axes,), axis_size=2)(points),
            jax.grad(together)(points),
            jvp_of(together, points),
        )

    return column


def jvp_of(f, points):
    return jax.jvp(f, (points,), (jax.tree.map(jnp.cos, points),))[1]


def scan(f, at):
    def total(point):
        xs = jax.tree.map(lambda *leaves: jnp.stack(leaves), point["x"], at.other["x"])

        def step(sofar, x):
            value = energy(f)(point | {"x": x}) * (1 + 0.1 * sofar)
            return sofar + value, value

        return jax.lax.scan(step, 0.0, xs, length=2)[0]

    return jax.grad(total)(at.point), jax.jvp(total, (at.point,), (at.v,))[1]


def checkpoint(f, at):
    f = jax.checkpoint(f)
    return jax.grad(energy(f))(at.point), jax.jvp(f, (at.point,), (at.v,)), jvp_of_grad(f, at)


def shard_map(f, at):
    """The params on every device, everything else split over the devices (here there is one)."""
    specs = {name: PartitionSpec(*["i"] * (name != "params")) for name in at.point}
    axis = {name: jax.tree.map(lambda leaf: leaf[None], part) for name, part in at.point.items()}
    points = axis | {"params": at.point["params"]}

    def total(point):
        own = {
            name: part if name == "params" else jax.tree.map(lambda leaf: leaf[0], part)
            for name, part in point.items()
        }
        return jax.lax.psum(energy(f)(own), "i")

    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    run = jax.shard_map(total, mesh=mesh, in_specs=(specs,), out_specs=PartitionSpec())
    return jax.grad(run)(points), jvp_of(run, points)


def eval_shape(f, at):
    shapes = jax.eval_shape(lambda at: (jax.grad(energy(f))(at.point), linearize(f, at)), at)
    return jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)


TRANSFORMATIONS = {
    "grad": lambda f, at: jax.grad(energy(f))(at.point),
    "vjp": vjp,
    "jvp": lambda f, at: jax.jvp(f, (at.point,), (at.v,)),
    "linearize": linearize,
    "jacfwd": jacobian(jax.jacfwd),
    "jacrev": jacobian(jax.jacrev),
    "hessian": hessian(jax.hessian),
    "jvp of grad": jvp_of_grad,
    "grad of grad": grad_of_grad,
    "grad of jvp": grad_of_jvp,
    "jvp of jvp": jvp_of_jvp,
    "vmap of params": over({"params"}, 0),
    "vmap of inputs": over({"x", "carry"}, -1),
    "vmap of both": over({"params", "x", "carry"}, 1),
    "jit": lambda f, at: jvp_of_grad(jax.jit(f), at),
    "scan": scan,
    "checkpoint": checkpoint,
    "shard_map": shard_map,
    "eval_shape": eval_shape,
}


def hand_and_plain(case, transformation):
    """One compiled program: the result of a transformation with `by_hand`, and with the plain equations."""
    by_hand = fn.by_hand(case.layer)

    @jax.jit
    def both(at):
        return tuple(
            TRANSFORMATIONS[transformation](function(case, layer, at.fixed), at)
            for layer in (by_hand, case.layer)
        )

    return both

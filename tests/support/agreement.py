"""Compares a layer with autodiff and with differences in one compiled program, cheap enough for many settings."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import fnnets as fn
from fnnets import catalogue

STEP = 1e-3


def check(net, x, **mode):
    """Compares a layer's gradients at x with autodiff (1e-11) and differences (1e-7); needs float64."""
    rng = np.random.default_rng(0)
    flat, unravel = ravel_pytree((catalogue.random_params(net, rng, x), jnp.asarray(x)))

    def run(flat, dy):
        params, x = unravel(flat)
        y, _, saved = net.forward(params, x, **mode)
        hand, _ = ravel_pytree(net.backward(params, saved, dy)[:2])

        def energy(flat):
            return (net.apply(*unravel(flat), **mode) * dy).sum()

        # Fourth-order differences; one program evaluates all their points.
        steps = STEP * jnp.array([1.0, -1.0, 2.0, -2.0])[:, None, None] * jnp.eye(flat.size)
        near, back, far, further = jax.lax.map(energy, (flat + steps).reshape(-1, flat.size)).reshape(4, -1)
        differences = (8 * (near - back) - (far - further)) / (12 * STEP)
        return y, net.apply(params, x, **mode), hand, jax.grad(energy)(flat), differences

    dy = rng.standard_normal(jax.eval_shape(lambda: net.apply(*unravel(flat), **mode)).shape)
    y, plain, hand, auto, differences = jax.jit(run)(flat, dy)
    chex.assert_trees_all_close(y, plain, rtol=1e-13, atol=1e-13)
    params, x = unravel(flat)
    marks = jax.tree.map(lambda leaf, mark: np.full(leaf.shape, mark), params, fn.trainable(params))
    trained = np.concatenate([np.ravel(leaf) for leaf in (*jax.tree.leaves(marks), np.ones(x.size, bool))])
    assert not hand[~trained].any()
    scale = np.abs(auto).max()
    np.testing.assert_allclose(hand, auto, rtol=1e-11, atol=1e-11 * scale)
    np.testing.assert_allclose(hand[trained], differences[trained], rtol=1e-7, atol=1e-7 * scale)
    return y

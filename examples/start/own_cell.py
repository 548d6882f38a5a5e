"""Your own recurrent cell, one step and its gradient, which fnnets runs over time: `python examples/start/own_cell.py`."""

import jax
import jax.numpy as jnp

import fnnets as fn

UNITS = 3


def step(params, h, z):
    return jnp.tanh(z + params["a"] * h)


def forward(params, h, z):  # the new carry, and what backward needs, here the same carry
    h = step(params, h, z)
    return h, h


def backward(params, h, saved, dh):  # one step back: dz_t = dh_t·(1 − h_t²), dh_{t−1} = a ⊙ dz_t
    dz = dh * (1 - saved**2)
    return params["a"] * dz, dz


def collect(params, x, h, saved, dz):  # once all dz are known: dw = Σ x_tᵀ·dz_t, da = Σ h_{t−1} ⊙ dz_t
    dparams = {"w": jnp.einsum("...i,...j->ij", x, dz), "a": jnp.einsum("...j,...j->j", h, dz)}
    return dparams, dz @ params["w"].T


cell = fn.Cell(  # h_t = tanh(x_t·w + a ⊙ h_{t−1})
    init=lambda key, x: {
        "w": jax.random.normal(key, (x.shape[-1], UNITS)),
        "a": jnp.full(UNITS, 0.5),
    },
    start=lambda params, batch: jnp.zeros((*batch, UNITS)),
    project=lambda params, x: x @ params["w"],  # the part without the carry, for all steps at once
    step=step,
    forward=forward,
    backward=backward,
    collect=collect,
    info="leaky",
)
layer = fn.recurrent(cell)  # adds the scans, masks, carries and memory, written once for all cells

if __name__ == "__main__":
    x = jax.random.normal(jax.random.key(0), (4, 6, 2))  # (examples, steps, features)
    params = layer.init(jax.random.key(1), x)
    print(fn.compare(layer, params, x), end="\n\n")

    mask = fn.length_mask(jnp.array([6, 3, 1, 5]), 6)
    y = layer.apply(params, x, mask=mask)
    print("y:", y.shape, "and 0 where the mask is False:", bool((y[~mask] == 0).all()))

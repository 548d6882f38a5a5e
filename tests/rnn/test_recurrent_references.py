"""Recurrent layers against PyTorch, Keras and the papers' equations: outputs, states and all gradients."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fnnets as fn

CASES = json.loads((Path(__file__).parents[1] / "references" / "recurrent.json").read_text())
UNITS = 3


def cases(source):
    names = {}
    for case in CASES[source]:
        options = [f"{name}={value}" for name, value in case["options"].items()]
        options += ["carry"] * case["carried"] + ["mask"] * (case["mask"] is not None)
        names["-".join([case["kind"], *options])] = case
    assert len(names) == len(CASES[source])
    return [pytest.param(case, id=name) for name, case in names.items()]


def arrays(tree):
    """The lists of a case's dict as arrays."""
    return {name: np.array(value) for name, value in tree.items()}


def fill(like, rows):
    """The params of a network; `rows` yields the fields of each layer as a dict, in order."""
    if hasattr(like, "_fields"):
        given = next(rows)
        assert set(given) == {name for name, leaf in like._asdict().items() if jax.tree.leaves(leaf)}
        return like._replace(**given)
    return tuple(fill(inner, rows) for inner in like)


def close(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == "float64"
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


def check(net, case, params, dparams, carry, dcarry):
    """Checks a network against a case, and returns the last carry and the gradient of the first."""
    mask = None if case["mask"] is None else jnp.array(case["mask"])
    x, dy = jnp.array(case["x"]), jnp.array(case["dy"])
    if mask is not None:  # masked values of x must not matter
        x = jnp.where(mask[..., None], x, jnp.nan)

    like = jax.eval_shape(net.init, jax.random.key(0), x)
    params = fill(like, iter(params))
    with jax.disable_jit():  # operation by operation: compiled once for all cases
        y, last, saved = net.forward(params, x, carry, mask=mask)
        got, dx, dfirst = net.backward(params, saved, dy, dcarry)
    close(y, np.array(case["y"]))
    close(dx, np.array(case["dx"]))
    close(got, fill(like, iter(dparams)))
    return last, dfirst


def with_bias(fields, kind, into, recurrent, gradient):
    """The fields with the bias. Two biases that are added become one; both have its gradient.

    The GRU's candidate keeps two, because the reset is between them.
    """
    b = into if gradient else into + recurrent
    if kind != "GRU":
        return fields | {"b": b}
    return fields | {"b": np.append(b[:-UNITS], into[-UNITS:]), "b_n": recurrent[-UNITS:]}


# ---------------------------------------------------------------- PyTorch


def torch_fields(case, which):
    """The params, or their gradients, of each layer and direction. PyTorch stores kernels as (outputs, inputs)."""
    raw, gradient = arrays(case[which]), which == "dparams"
    for suffix in [name.removeprefix("weight_ih") for name in raw if name.startswith("weight_ih")]:
        fields = {"w": raw[f"weight_ih{suffix}"].T, "u": raw[f"weight_hh{suffix}"].T}
        if f"bias_ih{suffix}" in raw:
            biases = raw[f"bias_ih{suffix}"], raw[f"bias_hh{suffix}"]
            fields = with_bias(fields, case["kind"], *biases, gradient)
        yield fields


def torch_carry(case, which):
    """Splits states (layers, B, H) into one (B, H) for each layer, or a pair for an LSTM."""
    states = [np.array(state) for state in case[which]]
    if not states:
        return None
    of_layers = [tuple(one) if len(one) == 2 else one[0] for one in zip(*states, strict=True)]
    return tuple(of_layers) if len(of_layers) > 1 else of_layers[0]


@pytest.mark.parametrize("case", cases("torch"))
def test_pytorch(case, x64):
    kind, options = case["kind"], case["options"]
    bias = options.get("bias", True)
    if kind == "RNN":
        activation = getattr(fn, options.get("nonlinearity", "tanh"))()
        one = fn.elman(UNITS, activation, use_bias=bias)
    elif kind == "GRU":
        one = fn.gru(UNITS, reset="after", update="old", use_bias=bias)
    else:
        one = fn.lstm(UNITS, use_bias=bias)
    one = fn.bidirectional(one) if options.get("bidirectional") else one
    net = fn.serial(one, one) if options.get("num_layers") == 2 else one
    params, dparams = torch_fields(case, "params"), torch_fields(case, "dparams")
    carry, dcarry = torch_carry(case, "states"), torch_carry(case, "dfinal")
    last, dfirst = check(net, case, params, dparams, carry, dcarry)
    if case["carried"]:
        close(jax.tree.leaves(last), jax.tree.leaves(torch_carry(case, "final")))
        close(jax.tree.leaves(dfirst), jax.tree.leaves(torch_carry(case, "dstates")))


# ---------------------------------------------------------------- Keras


def keras_fields(case, which):
    """The params, or their gradients, of each direction. Keras orders the GRU's gates z, r, h."""
    raw, gradient = arrays(case[which]), which == "dparams"
    cells = dict.fromkeys(name.rpartition("/")[0] for name in raw)  # the forward direction first
    for cell in cells:
        fields = {"w": raw[f"{cell}/kernel"], "u": raw[f"{cell}/recurrent_kernel"]}
        bias = raw.get(f"{cell}/bias")
        if case["kind"] == "GRU":
            z, r, n = (slice(k * UNITS, (k + 1) * UNITS) for k in range(3))
            order = np.r_[r, z, n]
            fields = {name: leaf[:, order] for name, leaf in fields.items()}
            bias = None if bias is None else bias[..., order]
        if bias is not None and bias.ndim == 2:
            fields = with_bias(fields, "GRU", *bias, gradient)
        elif bias is not None:
            fields["b"] = bias
        yield fields


@pytest.mark.parametrize("case", cases("keras"))
def test_keras(case, x64):
    kind, options = case["kind"], case["options"]
    bias = options.get("use_bias", True)
    if kind == "SimpleRNN":
        net = fn.elman(UNITS, getattr(fn, options.get("activation", "tanh"))(), use_bias=bias)
    elif kind == "GRU":
        reset = "after" if options["reset_after"] else "before"
        net = fn.gru(UNITS, reset=reset, update="old", use_bias=bias)
    else:
        net = fn.lstm(UNITS, use_bias=bias)
    net = fn.serial(net, net) if options["layers"] == 2 else net
    if options["merge"]:
        net = fn.bidirectional(net, {"ave": "mean"}.get(options["merge"], options["merge"]))
    check_with_states(net, case, keras_fields)


def check_with_states(net, case, fields):
    """Checks a network against a case whose states have the form of its carry."""

    def carry(which):
        states = [jnp.array(state) for state in case[which]] or [None]
        return tuple(states) if len(states) == 2 else states[0]

    params, dparams = fields(case, "params"), fields(case, "dparams")
    last, dfirst = check(net, case, params, dparams, carry("states"), carry("dfinal"))
    if case["carried"]:
        close(jax.tree.leaves(last), jax.tree.leaves(carry("final")))
        close(jax.tree.leaves(dfirst), jax.tree.leaves(carry("dstates")))


# ---------------------------------------------------------------- the papers' equations


@pytest.mark.parametrize("case", cases("equations"))
def test_the_papers_equations(case, x64):
    kind, options = case["kind"], dict(case["options"])
    sizes = (UNITS, 2) if kind == "jordan" else (UNITS,)
    if "activation" in options:
        options["activation"] = getattr(fn, options["activation"])()
    net = getattr(fn, kind)(*sizes, **options)
    check_with_states(net, case, lambda case, which: iter([arrays(case[which])]))

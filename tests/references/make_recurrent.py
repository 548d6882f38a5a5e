"""Writes recurrent.json: recurrent layers and all their gradients by PyTorch, Keras and the papers' equations.

Run it in this folder with PyTorch, Keras on jax and onnx installed:
`KERAS_BACKEND=jax JAX_ENABLE_X64=1 python make_recurrent.py`. All numbers are float64, in each source's own layout;
the test converts them. The equations are written in PyTorch, which differentiates them. If ONNX has the same
operator, its reference implementation must agree before the file is written.
"""

from __future__ import annotations

import json
from pathlib import Path

import jax
import keras
import numpy as np
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

BATCH, STEPS, INPUTS, UNITS = 3, 4, 2, 3
LENGTHS = [4, 1, 3]
RAGGED = [[True] * length + [False] * (STEPS - length) for length in LENGTHS]
GAPS = [[True, False, True, True], [False, True, True, False], [False, False, False, False]]
OUTPUTS = 2  # of the Jordan network, which feeds back its output

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
keras.config.set_floatx("float64")


def plain(value):
    """The value in types that json can write."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, torch.Tensor):
        value = value.detach()
    return np.asarray(value).tolist() if hasattr(value, "dtype") else value


def randoms(*shapes):
    return [torch.randn(shape) for shape in shapes]


def pulled_back(outputs, inputs):
    """Random gradients of the outputs, and the gradients of the inputs that follow."""
    douts = randoms(*(out.shape for out in outputs))
    return douts, torch.autograd.grad(outputs, inputs, douts)


def case(kind, options, mask, x, params, states, run):
    """One layer: `run(x, params, states) -> (y, final states)`, and every gradient for random dy, dfinal.

    Without initial states there is no gradient into the final states either.
    """
    names, carried = list(params), states is not None
    x, *leaves = (leaf.clone().requires_grad_() for leaf in (x, *params.values(), *(states or ())))
    given, begun = dict(zip(names, leaves, strict=False)), leaves[len(names) :]
    y, final = run(x, given, begun if carried else None)
    (dy, *dfinal), (dx, *grads) = pulled_back([y, *(final if carried else ())], [x, *leaves])
    values = {"x": x, "params": given, "states": begun, "y": y, "final": final}
    grads = {"dy": dy, "dfinal": dfinal, "dx": dx, "dparams": dict(zip(names, grads, strict=False))} | {
        "dstates": grads[len(names) :]
    }
    return plain({"kind": kind, "options": options, "carried": carried, "mask": mask} | values | grads)


# ---------------------------------------------------------------- PyTorch's modules


def torch_case(kind, lengths=None, carried=False, **options):
    net = getattr(torch.nn, kind)(INPUTS, UNITS, batch_first=True, **options)
    params = {name: torch.randn_like(leaf) for name, leaf in net.named_parameters()}
    shape = (options.get("num_layers", 1), BATCH, UNITS)
    states = randoms(*[shape] * (2 if kind == "LSTM" else 1)) if carried else None

    def run(x, params, states):
        if lengths is not None:
            x = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        given = () if states is None else (tuple(states) if kind == "LSTM" else states[0],)
        y, final = torch.func.functional_call(net, params, (x, *given))
        if lengths is not None:
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=STEPS)
        return y, list(final) if kind == "LSTM" else [final]

    mask = None if lengths is None else RAGGED
    return case(kind, options, mask, torch.randn(BATCH, STEPS, INPUTS), params, states, run)


def torch_cases():
    for kind in ("LSTM", "GRU", "RNN"):
        yield torch_case(kind)
        yield torch_case(kind, bias=False)
        yield torch_case(kind, LENGTHS, carried=True, num_layers=2)
        yield torch_case(kind, LENGTHS, bidirectional=True)
    yield torch_case("RNN", carried=True, nonlinearity="relu")
    yield torch_case("LSTM", LENGTHS, num_layers=2, bidirectional=True)
    yield torch_case("GRU", LENGTHS, num_layers=2, bidirectional=True)


# ---------------------------------------------------------------- Keras' layers


@keras.saving.register_keras_serializable()
def tanh(x):
    """A tanh in float64: Keras' own returns float32 on jax."""
    return jax.numpy.tanh(x)


def keras_case(kind, mask=None, carried=False, merge=None, layers=1, **options):
    """One layer; merge: how two directions are joined, None for one; layers: the depth of each direction."""
    cells = [
        getattr(keras.layers, f"{kind}Cell")(UNITS, **{"activation": tanh} | options) for _ in range(layers)
    ]
    given = {"return_sequences": True, "return_state": merge is None}
    layer = keras.layers.RNN(cells if layers > 1 else cells[0], **given)
    layer.zero_output_for_mask = True  # Keras repeats the last output there
    if merge:
        layer = keras.layers.Bidirectional(layer, merge_mode=merge)
    layer.build((BATCH, STEPS, INPUTS))
    rest = [variable.value for variable in layer.non_trainable_variables]
    count = (2 if kind == "LSTM" else 1) if carried else 0

    def run(x, weights, states):
        given = {} if mask is None else {"mask": np.array(mask)}
        if states:
            given["initial_state"] = list(states)
        outputs, _ = layer.stateless_call(weights, rest, x, **given)
        y, *final = [outputs] if merge else outputs
        return y, final if states else []

    shapes = [variable.shape for variable in layer.trainable_variables]
    x, *leaves = (leaf.numpy() for leaf in randoms((BATCH, STEPS, INPUTS), *shapes))
    states = [leaf.numpy() for leaf in randoms(*[(BATCH, UNITS)] * count)]
    (y, final), pull = jax.vjp(run, x, leaves, states)
    dy, *dfinal = (leaf.numpy() for leaf in randoms(y.shape, *(leaf.shape for leaf in final)))
    dx, dleaves, dstates = pull((dy, dfinal))
    names = [variable.path.partition("/")[2] for variable in layer.trainable_variables]
    values = {"x": x, "params": dict(zip(names, leaves, strict=True)), "states": states, "y": y}
    values |= {"final": final, "dy": dy, "dfinal": dfinal, "dx": dx, "dstates": dstates}
    values |= {"dparams": dict(zip(names, dleaves, strict=True))}
    options |= {"merge": merge, "layers": layers}
    return plain({"kind": kind, "options": options, "carried": carried, "mask": mask} | values)


def keras_cases():
    yield keras_case("GRU", reset_after=False)
    yield keras_case("GRU", GAPS, reset_after=False, carried=True)
    yield keras_case("GRU", GAPS, reset_after=False, merge="concat")
    yield keras_case("GRU", reset_after=False, use_bias=False)
    yield keras_case("GRU", GAPS, reset_after=True, carried=True)
    yield keras_case("LSTM", GAPS, carried=True)
    yield keras_case("LSTM", GAPS, merge="concat")
    yield keras_case("SimpleRNN", GAPS, carried=True)
    for merge in ("sum", "ave", "mul"):
        yield keras_case("SimpleRNN", GAPS, merge=merge)
    yield keras_case("SimpleRNN", GAPS, merge="concat", layers=2)
    yield keras_case("SimpleRNN", activation="relu", carried=True)
    yield keras_case("SimpleRNN", activation="sigmoid", use_bias=False)


# ---------------------------------------------------------------- the papers' equations


def lstm_step(x, states, w, u, b, p=None, coupled=False):
    """Graves 2013, eqs. 7–11 (peepholes p); coupled: f = 1 − i (Greff et al. 2017, CIFG)."""
    h, c = states
    parts = (x @ w + h @ u + b).chunk(3 if coupled else 4, -1)
    zi, zf, zg, zo = (parts[0], None, *parts[1:]) if coupled else parts
    pi, pf, po = (0, 0, 0) if p is None else (p[0], p[1], p[-1])
    i = torch.sigmoid(zi + pi * c)
    f = 1 - i if coupled else torch.sigmoid(zf + pf * c)
    c = f * c + i * torch.tanh(zg)
    o = torch.sigmoid(zo + po * c)
    h = o * torch.tanh(c)
    return h, [h, c]


def gru_step(x, states, w, u, b, b_n=0.0, reset="before", update="new"):
    """Before and old: Cho et al. 2014, eqs. 5–8; before and new: Chung et al. 2014, section 3.2."""
    (h,) = states
    wr, wz, wn = w.chunk(3, -1)
    ur, uz, un = u.chunk(3, -1)
    br, bz, bn = b.chunk(3, -1)
    r = torch.sigmoid(x @ wr + h @ ur + br)
    z = torch.sigmoid(x @ wz + h @ uz + bz)
    seen = (r * h) @ un if reset == "before" else r * (h @ un + b_n)
    n = torch.tanh(x @ wn + seen + bn)
    h = (1 - z) * h + z * n if update == "new" else z * h + (1 - z) * n
    return h, [h]


def mgu_step(x, states, w, u, b):
    """Zhou et al. 2016: the forget gate resets too."""
    (h,) = states
    wf, wn = w.chunk(2, -1)
    uf, un = u.chunk(2, -1)
    bf, bn = b.chunk(2, -1)
    f = torch.sigmoid(x @ wf + h @ uf + bf)
    n = torch.tanh(x @ wn + (f * h) @ un + bn)
    h = (1 - f) * h + f * n
    return h, [h]


def elman_step(x, states, w, u, b, activation):
    """Elman 1990: the context is the last hidden state."""
    (s,) = states
    s = getattr(torch, activation)(x @ w + s @ u + b)
    return s, [s]


def jordan_step(x, states, w, u, b, v, c, activation):
    """Jordan 1986: the context is the last output; g is the identity."""
    (y,) = states
    y = getattr(torch, activation)(x @ w + y @ u + b) @ v + c
    return y, [y]


def equation_case(kind, mask=None, **options):
    step = {
        "lstm": lstm_step, "gru": gru_step, "mgu": mgu_step, "elman": elman_step, "jordan": jordan_step,
    }[kind]  # fmt: skip
    coupled, peephole = options.get("coupled", False), options.pop("peephole", False)
    blocks = {"lstm": 3 if coupled else 4, "gru": 3, "mgu": 2}.get(kind, 1) * UNITS
    size = OUTPUTS if kind == "jordan" else UNITS
    shapes = {"w": (INPUTS, blocks), "u": (size, blocks), "b": (blocks,)}
    shapes |= {"p": (2 if coupled else 3, UNITS)} if peephole else {}
    shapes |= {"b_n": (UNITS,)} if options.get("reset") == "after" else {}
    shapes |= {"v": (UNITS, OUTPUTS), "c": (OUTPUTS,)} if kind == "jordan" else {}

    def run(x, params, states):
        ys = []
        for t in range(STEPS):
            y, new = step(x[:, t], states, **params, **options)
            here = torch.tensor(mask)[:, t, None] if mask else torch.ones(BATCH, 1, dtype=bool)
            states = [torch.where(here, after, before) for after, before in zip(new, states, strict=True)]
            ys.append(torch.where(here, y, 0))
        return torch.stack(ys, 1), states

    states = randoms(*[(BATCH, size)] * (2 if kind == "lstm" else 1))
    params = {name: torch.randn(shape) for name, shape in shapes.items()}
    made = case(kind, options, mask, torch.randn(BATCH, STEPS, INPUTS), params, states, run)
    return made | {"options": options | ({"peephole": peephole} if kind == "lstm" else {})}


def onnx_agrees(made):
    """Checks a case with the ONNX operator's reference implementation, whose gates are i, o, f, g and z, r, n."""
    kind, options = made["kind"].upper(), made["options"]
    order = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}[kind]

    def rows(name):
        blocks = np.split(np.array(made["params"][name]), len(order), -1)
        return np.concatenate([blocks[k] for k in order], -1).T

    bias = np.concatenate([rows("b"), np.zeros_like(rows("b"))])
    bias[-UNITS:] = made["params"].get("b_n", 0)
    inputs = {"X": np.swapaxes(made["x"], 0, 1), "W": rows("w")[None], "R": rows("u")[None], "B": bias[None]}
    inputs |= {"h": np.array(made["states"][:1])}
    names = ["X", "W", "R", "B", "", "h"]
    if kind == "LSTM":
        p = np.array(made["params"].get("p", np.zeros((3, UNITS))))
        inputs |= {"c": np.array(made["states"][1:]), "P": p[[0, 2, 1]].reshape(1, -1)}
        names += ["c", "P"]
    settings = {"linear_before_reset": int(options["reset"] == "after")} if kind == "GRU" else {}
    node = helper.make_node(kind, names, ["Y"], hidden_size=UNITS, **settings)
    described = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, v.shape) for n, v in inputs.items()]
    result = [helper.make_tensor_value_info("Y", TensorProto.DOUBLE, None)]
    model = helper.make_model(helper.make_graph([node], kind, described, result))
    (y,) = ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_allclose(np.swapaxes(y[:, 0], 0, 1), made["y"], rtol=1e-12, atol=1e-14)
    return made


def equation_cases():
    yield onnx_agrees(equation_case("lstm", peephole=True))
    yield equation_case("lstm", GAPS, peephole=True)
    yield equation_case("lstm", coupled=True)
    yield equation_case("lstm", GAPS, coupled=True, peephole=True)
    yield onnx_agrees(equation_case("gru", reset="before", update="old"))
    yield onnx_agrees(equation_case("gru", reset="after", update="old"))
    yield equation_case("gru", GAPS, reset="before", update="new")
    yield equation_case("gru", GAPS, reset="after", update="new")
    yield equation_case("elman", GAPS, activation="sigmoid")
    yield equation_case("jordan", GAPS, activation="tanh")
    yield equation_case("mgu")
    yield equation_case("mgu", GAPS)


if __name__ == "__main__":
    cases = {"torch": [*torch_cases()], "keras": [*keras_cases()], "equations": [*equation_cases()]}
    lines = [f'"{name}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for name, rows in cases.items()]
    Path(__file__).with_name("recurrent.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")

"""Gradients by hand, compared with autodiff and central differences leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fnnets.comparison import problems
from fnnets.comparison.measurement import measure
from fnnets.comparison.report import Report
from fnnets.comparison.verdict import judge
from fnnets.core.layer import Layer


def compare(
    layer: Layer,
    params: Any,
    x: Any,
    *,
    key: Any = None,
    train: bool = False,
    mask: Any = None,
    carry: Any = None,
    dy: Any = None,
    loss: Any = None,
    target: Any = None,
    loss_mask: Any = None,
) -> Report:
    """Compares a layer's gradient by hand with autodiff and with central differences.

    Formula: with E = Σ dy ⊙ apply(params, x), or E = loss(apply(params, x), target), the gradients of E
    with respect to every floating-point leaf of params, x and carry:

        by hand       layer.backward(params, saved, dy)
        autodiff      jax.vjp of the plain equations (`apply`, or `forward` with a carry)
        differences   (E(p + h) − E(p − h))/2h, extrapolated, at every entry of a small leaf and a sample
                      of a large one, except at kinks

    Everything runs in float64; jax's configuration does not change. A leaf is right if hand and autodiff differ
    by at most 1e-11, and both differ from the differences by at most 1e-7, relative to the gradient's scale.

    Args:
      layer: any layer or network; `by_hand(layer)` counts as the plain layer.
      params: its parameters, away from their initial zeros (a zero bias hides mistakes).
      x: its input.
      key, train, mask, carry: as in `layer.forward`.
      dy: the gradient of the output; random by default.
      loss: a `Loss` to compare together with the layer, instead of dy.
      target: the loss's target.
      loss_mask: the loss's mask.

    Returns:
      A `Report`: a row for each leaf, `.ok`, `.to_json()`, and a table as its text. It names the mistake in a wrong
      leaf: sign, factor, transpose, missing sum, block, missing term or derivative, or no simple cause. For recurrent
      layers a note names the first time step and quantity of the backward pass that depart from autodiff.

    Raises:
      ValueError: a loss comes without target or with dy; or the layer refuses its input. An error from `backward`
        is not raised, but reported.

    Example:
      >>> import fnnets as fn, jax
      >>> net, x = fn.serial(fn.dense(3), fn.tanh()), jax.random.normal(jax.random.key(1), (4, 2))
      >>> print(fn.compare(net, net.init(jax.random.key(0), x), x).rows[0].verdict)
      ok

    Differences: `jax.test_util.check_grads` tests one random direction in the program's own precision; PyTorch's
    `gradcheck` tests every entry against differences alone. Neither says which leaf, or why.
    """
    with jax.enable_x64(True):
        problem = problems.of_layer(
            layer, params, x, key=key, train=train, mask=mask, carry=carry,
            dy=dy, loss=loss, target=target, loss_mask=loss_mask,
        )  # fmt: skip
        return judge(problem, measure(problem))


def compare_grad(
    f: Callable[..., Any],
    grad_by_hand: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
) -> Report:
    """Compares any function's gradient by hand with autodiff and with central differences.

    Formula: grad_by_hand(*args) against jax.grad(f, argnums)(*args) and (f(p + h) − f(p − h))/2h, in float64.

    Args:
      f: a function of arrays, or trees of arrays, to a scalar. If jax cannot trace it (it uses NumPy, for example),
        only differences are compared.
      grad_by_hand: the derivation `(*args) -> gradient`, with the structure of `jax.grad`'s result; it may use NumPy.
      *args: the arguments of both.
      argnums: which arguments to differentiate, as in `jax.grad`.

    Returns:
      A `Report`, as from `compare`.

    Raises:
      ValueError: f does not return a scalar.
      TypeError: an argument to differentiate has no floating-point leaf.

    Example:
      >>> import fnnets as fn, numpy as np, jax.numpy as jnp
      >>> w = np.array([1.0, 2.0, 3.0])
      >>> report = fn.compare_grad(lambda w: jnp.sum(w**3), lambda w: 3 * w, w)
      >>> report.ok, fn.compare_grad(lambda w: jnp.sum(w**3), lambda w: 3 * w**2, w).ok
      (False, True)
    """
    with jax.enable_x64(True):
        problem = problems.of_function(f, grad_by_hand, args, argnums)
        return judge(problem, measure(problem))


def assert_grad_matches(subject: Any, *args: Any, **settings: Any) -> None:
    """Raises unless the gradient by hand is right: `compare` or `compare_grad` as a test.

    Args:
      subject: a `Layer`, for `compare`, or a function, for `compare_grad`.
      *args: the other positional arguments.
      **settings: the keyword arguments.

    Raises:
      AssertionError: the gradient is wrong; the message is the report.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.assert_grad_matches(lambda w: jnp.sum(w**2), lambda w: 2 * w, jnp.arange(3.0))
    """
    report = (compare if isinstance(subject, Layer) else compare_grad)(subject, *args, **settings)
    if not report.ok:
        raise AssertionError(f"the gradient by hand is wrong\n{report}")

"""Gradients by hand held against autodiff and central differences, leaf by leaf."""

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
    """Holds three gradients of a layer against each other: by hand, by autodiff, by central differences.

    Formula: with E = Σ dy ⊙ apply(params, x), or E = loss(apply(params, x), target), the gradients of E
    with respect to every floating-point leaf of params, x and carry:

        by hand       layer.backward(params, saved, dy)
        autodiff      jax.vjp of the plain equations (`apply`; `forward` where a carry is given)
        differences   (E(p + h) − E(p − h))/2h, extrapolated, at every entry of a small leaf and a sample
                      of a large one; entries at a kink are set aside

    All of it in float64, whatever the dtypes given and the program's own default, whose configuration
    is left as it is. A leaf is right when hand and autodiff differ by at most 1e-11, and both
    differ from the differences by at most 1e-7, of the gradient's scale.

    Args:
      layer: any layer or network; one made by `by_hand` is taken as the plain layer that it was.
      params: its parameters, away from their initial zeros (a zero bias hides mistakes).
      x: its input.
      key, train, mask, carry: as in `layer.forward`.
      dy: the gradient of the output; drawn at random when it is not given.
      loss: a `Loss` to be compared together with the layer, instead of dy.
      target: the loss's target.
      loss_mask: the loss's mask.

    Returns:
      A `Report`: a row for each leaf, `.ok`, a readable table as its text, `.to_json()`. A leaf that is
      wrong is diagnosed: sign, factor, transpose, missing sum, block, missing term or derivative, or
      that no simple cause was found. Where recurrent layers are involved, a note says at which time step, and
      with which quantity, the backward pass departs from autodiff first; or that only the sum over time is wrong.

    Raises:
      ValueError: loss without target, or dy beside loss; what the layer raises on bad input. What
        `backward` raises is a finding, and stands in the report.

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
    """Holds any derivation of any function's gradient against autodiff and central differences.

    Formula: grad_by_hand(*args) against jax.grad(f, argnums)(*args) and (f(p + h) − f(p − h))/2h, in float64.

    Args:
      f: a function of arrays (or trees of them) to a scalar. A function that jax cannot trace, such as
        one in NumPy, is compared with differences alone.
      grad_by_hand: the derivation: `(*args) -> gradient`, in the structure that `jax.grad` gives;
        plain NumPy will do.
      *args: the arguments of both.
      argnums: which arguments are differentiated, as in `jax.grad`.

    Returns:
      A `Report`, as from `compare`.

    Raises:
      ValueError: f gives no scalar.
      TypeError: an argument to be differentiated has no floating-point leaf.

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
      subject: a `Layer`, followed by what `compare` takes; or a function, followed by what
        `compare_grad` takes.
      *args: the other arguments.
      **settings: the keyword arguments.

    Raises:
      AssertionError: a gradient is wrong; the message is the report.

    Example:
      >>> import fnnets as fn, jax.numpy as jnp
      >>> fn.assert_grad_matches(lambda w: jnp.sum(w**2), lambda w: 2 * w, jnp.arange(3.0))
    """
    report = (compare if isinstance(subject, Layer) else compare_grad)(subject, *args, **settings)
    if not report.ok:
        raise AssertionError(f"the gradient by hand is wrong\n{report}")

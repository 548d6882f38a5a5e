"""Windows that move over an input: sizes and padding of all convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fnnets.core import checks

ROUNDINGS = ("floor", "ceil", "torch")

Padding = str | int | Sequence[int | tuple[int, int]]


class Axis(NamedTuple):
    """A window along one axis: at position t it covers x[t·stride + k·dilation − low], 0 ≤ k < kernel.

    There are `low` zeros before the input and `high` after it. `high` is what the last position needs: more than the
    padding setting if sizes are rounded up, negative if windows do not reach the end of the input.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    dilation: int
    low: int
    high: int


class WindowShape(NamedTuple):
    """The settings of a window, for inputs of any size; every field but `rounding` has one entry for each axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[str | tuple[int, int], ...]
    dilation: tuple[int, ...]
    rounding: str

    def over(self, who: Any, sizes: Sequence[int]) -> tuple[Axis, ...]:
        """The window over an input of these sizes; refuses an input that is too small."""
        each = zip(sizes, self.kernel, self.strides, self.padding, self.dilation, strict=True)
        return tuple(_axis(who, *one, self.rounding) for one in each)

    def under(self, who: Any, sizes: Sequence[int]) -> tuple[Axis, ...]:
        """The window over an input for which the output has these sizes, as a transposed convolution needs it."""
        each = zip(sizes, self.kernel, self.strides, self.padding, self.dilation, strict=True)
        return tuple(_axis_under(who, *one) for one in each)


def window_shape(
    who: str, kernel_size: Any, strides: Any, padding: Any, dilation: Any, rounding: str = "floor"
) -> WindowShape:
    """Checks a layer's settings and returns a `WindowShape`. An int means all axes; in `kernel_size`, a single axis."""
    kernel = per_axis(who, "kernel_size", kernel_size, 1 if hasattr(kernel_size, "__index__") else None)
    n = len(kernel)
    checks.choice(who, "rounding", rounding, ROUNDINGS)
    return WindowShape(
        kernel,
        per_axis(who, "strides", strides, n),
        _paddings(who, padding, n),
        per_axis(who, "dilation", dilation, n),
        rounding,
    )


def out_size(
    n: int,
    kernel: int,
    stride: int = 1,
    padding: str | int | tuple[int, int] = "valid",
    dilation: int = 1,
    rounding: str = "floor",
) -> int:
    """The number of positions of a window along an axis: the output size of a convolution or a pool.

    Formula: with k = dilation·(kernel − 1) + 1 and p zeros of padding in total,

        floor:  ⌊(n + p − k)/stride⌋ + 1    every window lies inside the padded input
        ceil:   ⌈(n + p − k)/stride⌉ + 1    windows until one reaches the end; the last may extend beyond it
        torch:  as ceil, but one fewer if the last window would start after the input

    With padding "same" it is ⌈n/stride⌉ for every rounding. Whatever a window covers beyond the end counts as padding.
    With "ceil" and a stride above 1, the last window may cover padding only.

    Args:
      n: the size of the input.
      kernel: the number of places in a window.
      stride: the distance from one window to the next.
      padding: "valid" for none; "same" for as much as gives ⌈n/stride⌉, the same at both ends, with an odd zero at the
        end; a number for both ends; a pair (before, after).
      dilation: the distance from one place of a window to the next.
      rounding: "floor", "ceil" or "torch".

    Returns:
      The size, an int.

    Raises:
      ValueError: a number is too small, a word is unknown, or the window does not fit the input.

    Example:
      >>> import fnnets as fn
      >>> fn.out_size(32, 5), fn.out_size(28, 2, stride=2)
      (28, 14)
      >>> [fn.out_size(2, 1, stride=2, rounding=rounding) for rounding in ("floor", "ceil", "torch")]
      [1, 2, 1]

    References:
      Dumoulin & Visin, A guide to convolution arithmetic for deep learning (2016), relationships 6 and 15.

    Differences: all frameworks round down. Only the pools of PyTorch and ONNX also round up: their `ceil_mode` is
    "torch" here, which differs from the plain formula rounded up. "same" is as in TensorFlow and lax. PyTorch has it
    for stride 1 only, also with the odd zero at the end.
    """
    checks.positive("out_size", n=n, kernel=kernel, stride=stride, dilation=dilation)
    checks.choice("out_size", "rounding", rounding, ROUNDINGS)
    (one,) = _paddings("out_size", (padding,), 1)
    return _axis("out_size", n, kernel, stride, one, dilation, rounding).outputs


def per_axis(who: str, name: str, value: Any, n: int | None) -> tuple[int, ...]:
    """A setting as a tuple of whole numbers of at least 1, one for each of n axes; n=None allows one to three."""
    if hasattr(value, "__index__") and n is not None:
        checks.positive(who, **{name: value})
        return (int(value),) * n
    fitting = (1, 2, 3) if n is None else (n,)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) not in fitting:
        wanted = f"an int or a tuple of {'one, two or three' if n is None else n}"
        raise ValueError(f"{who}: {name} must be {wanted}, one for each spatial axis, got {value!r}.")
    checks.positive(who, **{f"{name}[{i}]": size for i, size in enumerate(value)})
    return tuple(map(int, value))


def _paddings(who: str, padding: Any, n: int) -> tuple[str | tuple[int, int], ...]:
    """The padding of each axis: "same", or a pair of whole numbers."""
    each = (padding,) * n if isinstance(padding, str) or hasattr(padding, "__index__") else padding
    if not isinstance(each, Sequence) or len(each) != n:
        raise ValueError(
            f"{who}: padding must be 'same', 'valid', an int, or a tuple with an int or a pair for each of the "
            f"{n} spatial axes, got {padding!r}."
        )
    return tuple(_amount(who, one) for one in each)


def _amount(who: str, padding: Any) -> str | tuple[int, int]:
    if isinstance(padding, str):
        checks.choice(who, "padding", padding, ("same", "valid"))
        return "same" if padding == "same" else (0, 0)
    pair = (padding, padding) if hasattr(padding, "__index__") else padding
    whole = isinstance(pair, Sequence) and len(pair) == 2 and all(hasattr(p, "__index__") for p in pair)
    if not whole or min(pair) < 0:
        raise ValueError(
            f"{who}: padding must be 'same', 'valid', a whole number of at least 0 or a pair of them, got {padding!r}."
        )
    return int(pair[0]), int(pair[1])


def _axis(
    who: Any, n: int, kernel: int, stride: int, padding: str | tuple[int, int], dilation: int, rounding: str
) -> Axis:
    """The window along an axis of n places."""
    extent = dilation * (kernel - 1) + 1
    if isinstance(padding, str):  # same
        outputs = -(-n // stride)
        low = max((outputs - 1) * stride + extent - n, 0) // 2
    else:
        low, after = padding
        rest = low + n + after - extent
        outputs = (rest if rounding == "floor" else rest + stride - 1) // stride + 1
        if rounding == "torch" and (outputs - 1) * stride >= low + n:
            outputs -= 1
        if outputs < 1:
            dilated = f" ({extent} with its dilation)" if dilation > 1 else ""
            padded = f", {low + n + after} with its padding" if low + after else ""
            raise ValueError(
                f"{who}: the window must fit the input, got a kernel of {kernel}{dilated} and an input of "
                f"{n}{padded}; give more padding, a smaller kernel or a larger input."
            )
    return Axis(n, outputs, kernel, stride, dilation, low, (outputs - 1) * stride + extent - n - low)


def _axis_under(
    who: Any, outputs: int, kernel: int, stride: int, padding: str | tuple[int, int], dilation: int
) -> Axis:
    """The window along an axis with just enough places for this number of outputs."""
    covered = (outputs - 1) * stride + dilation * (kernel - 1) + 1
    if isinstance(padding, str):  # same
        n, low = outputs * stride, max(covered - outputs * stride, 0) // 2
    else:
        n, low = covered - sum(padding), padding[0]
    if n < 1:
        raise ValueError(
            f"{who}: the output must have a size of at least 1, got {n}: {covered} minus a padding of "
            f"{sum(padding)}; give less padding, a larger kernel or a larger input."  # type: ignore[arg-type]
        )
    return Axis(n, outputs, kernel, stride, dilation, low, covered - n - low)

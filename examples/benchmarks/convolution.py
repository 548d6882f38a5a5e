"""One training step of a small residual network: by hand, by autodiff, and in flax, equinox, haiku and PyTorch.

Run `python examples/benchmarks/convolution.py`; `--quick` only shows that it runs. All frameworks train the same
network: a 3×3 convolution, batch normalisation and relu; then for every width a residual block of two 3×3
convolutions with batch normalisation, which from the second block on halves height and width and has a 1×1
projection; the mean over all places, and a dense layer. The step is the same too: forward with the statistics of
the batch, mean softmax cross entropy of integer labels, its gradient, params − 0.1·gradient and the moving
statistics, in float32, with the buffers of params and statistics donated to the step (PyTorch, shown for
comparison, updates in place and compiles nothing). Frameworks that are not installed are left out.

A claim besides those on time, flops and bytes: the gradient by hand needs at most 0.8 of the temporary memory of
`jax.grad` through the same forward.

`--scan` takes four steps of a smaller network in one `lax.scan`, as `fn.train.fit` runs whole epochs. There XLA on
CPUs does not change the layout of convolutions, and the kernel's gradient as autodiff writes it is slow.
"""

from __future__ import annotations

import sys

from convolution_peers import equinox, flax, haiku, pytorch
from convolution_task import Settings, autodiff, by_hand, no_autodiff
from harness import Benchmark, Claim, arguments, main
from processes import Contender

RIVALS = ("jax.grad", "flax", "equinox", "haiku")
JAX = (
    Contender("by_hand", by_hand),
    Contender("value_and_grad_by_hand", no_autodiff),
    Contender("jax.grad", autodiff),
    Contender("flax", flax, "flax"),
    Contender("equinox", equinox, "equinox"),
    Contender("haiku", haiku, "dm-haiku"),
)

STEP = Benchmark(
    "training step of a small residual network",
    (*JAX, Contender("pytorch", pytorch, "torch")),
    tuple(
        claim
        for ours in ("by_hand", "value_and_grad_by_hand")
        for claim in (Claim(ours, RIVALS), Claim(ours, ("jax.grad",), ("temp",), share=0.8))
    ),
    settings=Settings(),
    quick=Settings(batch=4, size=8, widths=(4, 8)),
)
SCAN = Benchmark(
    "four training steps of a smaller one in a scan, timed together",
    JAX,
    tuple(Claim(ours, RIVALS, ()) for ours in ("by_hand", "value_and_grad_by_hand")),
    settings=Settings(batch=32, size=8, widths=(16, 32), steps=4),
    quick=Settings(batch=2, size=4, widths=(2, 2), steps=2),
)

if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--scan", action="store_true", help="some steps in one lax.scan instead of one step")
    options = parser.parse_args()
    sys.exit(main(SCAN if options.scan else STEP, options))

"""One training step of a small residual network: by hand, by autodiff, and in flax, equinox, haiku and PyTorch.

Run `python examples/benchmarks/convolution.py`; `--quick` only shows that it runs. The network is the same for
all: a 3×3 convolution, batch normalisation and relu; then for every width a residual block of two 3×3
convolutions with batch normalisation, which halves height and width from the second block on and has a 1×1
projection there; the mean over all places, and a dense layer. So is the step: forward with the
statistics of the batch, mean softmax cross entropy of integer labels, its gradient, params − 0.1·gradient and the
moving statistics, in float32, with the buffers of params and statistics donated to the step (PyTorch, shown
for comparison, updates in place and compiles nothing). Frameworks that are not installed are left out.

Beside the claims on time, flops and bytes it tells the temporary memory of the gradient by hand as a share of
what `jax.grad` needs for the same network: at most 0.8.
"""

from __future__ import annotations

import sys

from convolution_peers import equinox, flax, haiku, pytorch
from convolution_task import Settings, autodiff, by_hand, no_autodiff
from harness import Benchmark, Claim, arguments, main
from processes import Contender

RIVALS = ("jax.grad", "flax", "equinox", "haiku")

BENCHMARK = Benchmark(
    "training step of a small residual network",
    (
        Contender("by_hand", by_hand),
        Contender("value_and_grad_by_hand", no_autodiff),
        Contender("jax.grad", autodiff),
        Contender("flax", flax, "flax"),
        Contender("equinox", equinox, "equinox"),
        Contender("haiku", haiku, "dm-haiku"),
        Contender("pytorch", pytorch, "torch"),
    ),
    tuple(
        claim
        for ours in ("by_hand", "value_and_grad_by_hand")
        for claim in (Claim(ours, RIVALS), Claim(ours, ("jax.grad",), ("temp",), share=0.8))
    ),
    settings=Settings(),
    quick=Settings(batch=4, size=8, widths=(4, 8)),
)

if __name__ == "__main__":
    sys.exit(main(BENCHMARK, arguments(__doc__).parse_args()))

"""Gradients by hand, compared with autodiff and central differences."""

from fnnets.comparison._compare import assert_grad_matches as assert_grad_matches
from fnnets.comparison._compare import compare as compare
from fnnets.comparison._compare import compare_grad as compare_grad
from fnnets.comparison.report import Report as Report
from fnnets.comparison.report import Row as Row

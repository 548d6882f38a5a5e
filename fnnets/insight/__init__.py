"""Gradients seen on their way: by layer, by time step, and what becomes of them."""

from fnnets.insight.gradient_flow import GradientFlow as GradientFlow
from fnnets.insight.gradient_flow import gradient_flow as gradient_flow
from fnnets.insight.trace import trace_backward as trace_backward

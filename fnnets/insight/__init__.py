"""Gradients seen on their way: by layer, by time step, and what becomes of them."""

from fnnets.insight.trace import trace_backward as trace_backward

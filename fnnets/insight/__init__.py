"""Tools that look inside networks: outputs, gradients, their flow, and the first value that is not finite."""

from fnnets.insight._gradient_flow import GradientFlow as GradientFlow
from fnnets.insight._gradient_flow import gradient_flow as gradient_flow
from fnnets.insight._intermediates import intermediates as intermediates
from fnnets.insight._summary import summary as summary
from fnnets.insight.locate import locate_nan as locate_nan
from fnnets.insight.non_finite import NonFinite as NonFinite
from fnnets.insight.trace import trace_backward as trace_backward

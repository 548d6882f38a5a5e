"""Gradients of whole networks: by hand, per example, through time, and second-order."""

from fnnets.gradients._by_hand import Aux as Aux
from fnnets.gradients._by_hand import by_hand as by_hand
from fnnets.gradients._by_hand import value_and_grad_by_hand as value_and_grad_by_hand
from fnnets.gradients._truncated_bptt import TruncatedBPTT as TruncatedBPTT
from fnnets.gradients._truncated_bptt import Window as Window
from fnnets.gradients._truncated_bptt import truncated_bptt as truncated_bptt
from fnnets.gradients.per_example import GradientNoise as GradientNoise
from fnnets.gradients.per_example import gradient_noise_scale as gradient_noise_scale
from fnnets.gradients.per_example import per_example_gradients as per_example_gradients
from fnnets.gradients.real_time import RTRL as RTRL
from fnnets.gradients.real_time import RTRLState as RTRLState
from fnnets.gradients.real_time import rtrl as rtrl

"""Layers that make one value of a window, or of all places, channel by channel."""

from fnnets.pooling.avg_pool import avg_pool as avg_pool
from fnnets.pooling.global_pools import global_avg_pool as global_avg_pool
from fnnets.pooling.global_pools import global_max_pool as global_max_pool
from fnnets.pooling.max_pool import max_pool as max_pool

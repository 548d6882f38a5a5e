"""Layers that reduce a window, all places or all time steps to one value, channel by channel."""

from fnnets.layers.pooling._avg_pool import avg_pool as avg_pool
from fnnets.layers.pooling._max_pool import max_pool as max_pool
from fnnets.layers.pooling.global_pools import global_avg_pool as global_avg_pool
from fnnets.layers.pooling.global_pools import global_max_pool as global_max_pool
from fnnets.layers.pooling.over_time import last as last
from fnnets.layers.pooling.over_time import max_over_time as max_over_time
from fnnets.layers.pooling.over_time import mean_over_time as mean_over_time

"""The base of the library: the contract of a layer, its checks, masks, params and recording.

Your own combinator calls its children through `fnnets.core.children`; see `fn.Info`.
"""

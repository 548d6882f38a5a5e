"""What everything else is built on: the contract of a layer, its checks, masks, params and recording.

A combinator of your own calls its children by `fnnets.core.children`; see `fn.Info`.
"""

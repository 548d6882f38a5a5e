"""What everything else is built on: the contract of a layer, its checks, masks, params and recording."""

"""The version of fnnets, which packaging reads here."""

__version__ = "0.1.0"

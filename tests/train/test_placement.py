"""The two placements offer the same; what they do on several devices is in test_many_devices.py."""

import inspect

from fnnets.train.placement import OneDevice, OnMesh


def test_both_placements_have_the_same_functions():
    """So that the code that trains need not know which one it has."""

    def offered(kind):
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {
            name: list(inspect.signature(value).parameters) if inspect.isfunction(value) else None
            for name, value in public.items()
        }

    assert offered(OneDevice) == offered(OnMesh)

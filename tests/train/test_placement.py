"""The two placements have the same functions; test_many_devices.py tests them on several devices."""

import inspect

from fnnets.train.placement import OneDevice, OnMesh


def test_both_placements_have_the_same_functions():
    """The code that trains does not know which one it has."""

    def interface(kind):
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {
            name: list(inspect.signature(value).parameters) if inspect.isfunction(value) else None
            for name, value in public.items()
        }

    assert interface(OneDevice) == interface(OnMesh)

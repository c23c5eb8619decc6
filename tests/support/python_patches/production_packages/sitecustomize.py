"""A Python without the development packages, as in the production image. Through PYTHONPATH."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

HIDDEN = {"django_extensions", "debug_toolbar", "opentelemetry"}


class Hiding(MetaPathFinder):
    def __init__(self, finders: list[Any]) -> None:
        self.finders = finders

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.partition(".")[0] in HIDDEN:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec), None)


sys.meta_path[:] = [Hiding(list(sys.meta_path))]

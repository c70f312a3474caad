"""`import kodosumi` where flows are described and run: what an unchanged app imports is kodo's own.

kodo's modules come first, also where the real package is installed (an app's requirements name it): that one would
start Ray actors whose events nobody reads. Only processes of flows do so; a Python of one's own has the real package.

`from ray import serve`, by which such apps are deployed, gives a stand-in where Ray is installed without Serve.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["install"]

_HERE = "kodo.flow.kodosumi"

_MODULES: Mapping[str, Mapping[str, str]] = {
    "kodosumi": {},
    "kodosumi.core": {"": "*"},
    "kodosumi.error": {"errors": "KodosumiError"},
    "kodosumi.response": {"response": "*"},
    "kodosumi.dtypes": {"response": "*"},
    "kodosumi.serve": {"app": "ServeAPI Launch Templates"},
    "kodosumi.runner": {},
    "kodosumi.runner.main": {"app": "Launch"},
    "kodosumi.runner.tracer": {"tracer": "Tracer"},
    "kodosumi.service": {},
    "kodosumi.service.inputs": {},
    "kodosumi.service.inputs.errors": {"errors": "InputsError"},
    "kodosumi.service.inputs.forms": {"forms": "*"},
}
"""What each module of kodosumi has here: by module of this package, the names; `*`: all that are public."""

_SERVE = "ray.serve"


def install() -> None:
    """Make this process able to import them."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name in _MODULES:
            return ModuleSpec(name, _Loader(), origin=_HERE, is_package=True)
        if name.startswith("kodosumi."):
            raise ModuleNotFoundError(f"kodo has no {name}: it stands in for what apps import of kodosumi", name=name)
        if name == _SERVE and not _serves():
            return ModuleSpec(name, _ServeLoader(), origin=_HERE)
        return None


class _Loader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        for place, names in _MODULES[module.__name__].items():
            source = importlib.import_module(f"{_HERE}.{place}" if place else _HERE)
            public = source.__all__ if names == "*" else names.split()
            vars(module).update({name: getattr(source, name) for name in public})
            vars(module)["__all__"] = list(public)


def _serves() -> bool:
    """Return whether Ray Serve's own dependencies are there; Ray without its extra cannot import it."""
    return all(importlib.util.find_spec(name) for name in ("fastapi", "grpc", "prometheus_client", "watchfiles"))


class _ServeLoader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(deployment=_deployment, ingress=_ingress, run=_nothing)


class _Deployment:
    """A class that kodosumi would deploy; bound, it is its app."""

    def __init__(self, app: Any):
        self._app = app

    def options(self, **_: Any) -> _Deployment:
        return self

    def bind(self, *_: Any, **__: Any) -> Any:
        return self._app


def _deployment(target: Any = None, **_: Any) -> Any:
    if target is None:
        return _deployment
    return _Deployment(getattr(target, "_kodosumi_app", None))


def _ingress(app: Any) -> Any:
    def mark(target: Any) -> Any:
        target._kodosumi_app = app
        return target

    return mark


def _nothing(*_: Any, **__: Any) -> None:
    """Deploy nothing."""

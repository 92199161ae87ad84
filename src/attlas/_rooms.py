"""A room that is also a verb: `attlas.capture(model)` calls it, `attlas.capture.store` is a module of it.

Importing a submodule binds it as an attribute of its package, so `attlas.capture` is the room as soon as anything
inside it was imported. Making the room's module callable keeps the public name true in every order of imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(module_name: str, verb: Callable[..., Any]) -> None:
    """Let the module called `module_name` be called as `verb`."""

    class CallableRoom(ModuleType):
        __doc__ = verb.__doc__
        __wrapped__ = staticmethod(verb)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return verb(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableRoom

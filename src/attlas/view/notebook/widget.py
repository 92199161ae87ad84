"""The only door to anywidget: the page as a widget, whose questions come and go over the notebook's own connection."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attlas.errors import MissingPackageError, StoreError

if TYPE_CHECKING:
    from attlas.view.notebook.asking import Asking, Send

SCRIPT = "widget.js"


def widget(asking: Callable[[Send], Asking], height: int, still: Callable[[], str]) -> Any:
    """Return a widget that shows the page.

    Parameters
    ----------
    asking : callable
        Makes what takes the page's questions, of the way in which answers are sent.
    height : int
        In pixels.
    still : callable
        Gives what stands in its place where there are no widgets, such as on a page that only shows notebooks.

    Raises
    ------
    MissingPackageError
        The package anywidget is not there.
    StoreError
        The page was not built.
    """
    if find_spec("anywidget") is None:
        raise MissingPackageError("show: it needs the package anywidget; pip install 'attlas[notebook]'")
    return _kind()(asking, height, still)


@lru_cache(maxsize=1)
def _kind() -> type[Any]:
    """Return the widget's class; made when it is first needed, because its parent may not be installed."""
    import anywidget  # pyright: ignore[reportMissingImports] - it may not be installed, and checks do without it
    import traitlets  # pyright: ignore[reportMissingImports] - it comes with anywidget

    script = _built(SCRIPT)

    class AttlasWidget(anywidget.AnyWidget):
        """The page of attlas in a notebook."""

        _esm = script
        height = traitlets.Int(720).tag(sync=True)

        def __init__(self, asking: Callable[[Send], Asking], height: int, still: Callable[[], str]) -> None:
            super().__init__(height=height)
            self._still = still
            self._asking = asking(lambda message, buffers: self.send(dict(message), buffers=list(buffers)))
            self.on_msg(lambda _, message, __: self._asking.receive(message))

        def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            found = super()._repr_mimebundle_(**options)
            data, metadata = found if isinstance(found, tuple) else (found or {}, {})
            return {**data, "text/html": self._still()}, metadata

        def close(self) -> None:
            """Close the widget and let go of what it shows."""
            self._asking.close()
            super().close()

    return AttlasWidget


def _built(name: str) -> Path:
    path = Path(str(resources.files("attlas.view").joinpath("static", name)))
    if not path.is_file():
        raise StoreError(f"{name}: the page is not built; install attlas again, or run `npm run build` in web/")
    return path

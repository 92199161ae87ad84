"""Keep the attention matrices of a model while it runs, prove them, store them; the only room that touches a model."""

from attlas._rooms import make_callable
from attlas.capture.ablating import ablate
from attlas.capture.language_model import LanguageModel, load
from attlas.capture.recorder import capture
from attlas.capture.result import Capture
from attlas.capture.store import open_capture

__all__ = ["Capture", "LanguageModel", "ablate", "capture", "load", "open_capture"]

make_callable(__name__, capture)

"""A pass that is resumed in the middle gives what a whole one gives, in every family, and nothing stays behind."""

import inspect
import threading
from typing import Any

import pytest
import torch
from torch import nn

from attlas.capture.resuming import Survey
from attlas.testing.tiny_models import TINY_MODELS, TinyModel
from contract import families

READERS = [tiny for tiny in TINY_MODELS if tiny.reads_text]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def run(model: nn.Module, tiny: TinyModel, rows: int) -> list[torch.Tensor]:
    inputs: dict[str, Any] = {name: ids.expand(rows, -1) for name, ids in tiny.inputs().items()}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    with torch.no_grad():
        return families.numbers(model(**inputs))


@pytest.mark.parametrize("tiny", READERS, ids=lambda tiny: tiny.family)
def test_from_every_layer_on(tiny: TinyModel) -> None:
    model = tiny.build()
    survey = Survey(model)
    whole = survey.run(lambda: run(model, tiny, 1))
    if not survey.resumable:
        assert not tiny.named
        return
    ran: list[int] = []
    for layer in sorted(survey.heads):
        handles = [
            module.register_forward_hook(lambda *_: ran.append(1))
            for module in model.modules()
            if not list(module.children())
        ]
        ran.clear()
        with survey.resumed(layer, 3):
            resumed = run(model, tiny, 3)
        calls = len(ran)
        ran.clear()
        repeated = run(model, tiny, 3)
        assert calls < len(ran) or layer == 0, "nothing was skipped"
        for handle in handles:
            handle.remove()
        for one, other, all_of_it in zip(whole, resumed, repeated, strict=True):
            assert other.shape == all_of_it.shape
            torch.testing.assert_close(other[1:2], one, rtol=1e-4, atol=1e-5)
    assert all("forward" not in vars(module) for module in model.modules())


def test_other_threads_run_everything_and_an_exception_restores_everything() -> None:
    tiny = next(tiny for tiny in TINY_MODELS if tiny.family == "Llama")
    model: Any = tiny.build()
    survey = Survey(model)
    survey.run(lambda: run(model, tiny, 1))
    plain, found = run(model, tiny, 2), []
    first, second = model.model.layers
    first.forward = own = first.forward  # as other tools replace it
    with torch.no_grad():
        first.mlp.up_proj.weight += 1  # what a resumed pass cannot see
    moved = run(model, tiny, 2)

    def resume_and_fail() -> None:
        with survey.resumed(1, 2):
            thread = threading.Thread(target=lambda: found.append(run(model, tiny, 2)[0]))
            thread.start()
            thread.join()
            found.append(run(model, tiny, 2)[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        resume_and_fail()
    assert torch.equal(found[0], moved[0])
    torch.testing.assert_close(found[1], plain[0])
    assert not torch.allclose(found[0], found[1])
    assert vars(first)["forward"] is own
    assert "forward" not in vars(second)

"""A classifier without a download: two classes on top of a BERT that has none, learnt from generated texts in seconds.

The encoder stays as it is. The first token's state is standardised in the place of BERT's pooler, and a logistic
regression reads it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.explain.prompts import Prompt, prompts
from attlas.models.facts import gather_facts

DECAY = 1e-3
"""Weight of the squared weights, beside the mean loss of a text."""

STEPS = 300
TOGETHER = 32
WIDTH = 0.25
"""A standardised state is made this small, so that BERT's tanh bends it little."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model with two classes.

    Parameters
    ----------
    lm : LanguageModel
        A transformers `BertForSequenceClassification`; its encoder is the one that was given.
    accuracy : float
        On texts that it was not trained on; chance is 0.5.
    trained, held_out : int
        How many texts it was trained on, and how many it was tested on.
    """

    lm: LanguageModel
    accuracy: float
    trained: int
    held_out: int


def classifier(lm: LanguageModel, kind: str, *, texts: int = 600, held_out: int = 200, seed: int = 0) -> Classifier:
    """Train two classes on top of a BERT.

    Parameters
    ----------
    lm : LanguageModel
        A BERT encoder. It is not changed, and shares its weights with the result.
    kind : str
        Which generated texts to tell apart, see `attlas.explain.prompts`: ``"sentiment"``, ``"facts"`` or
        ``"agreement"``.
    texts, held_out : int
        How many texts to train on, and how many others to test on.
    seed : int
        What texts are drawn from. Texts to be explained should come from another one.

    Raises
    ------
    UnsupportedModelError
        The model is no BERT.
    ArgumentError
        There is no such kind, or too few texts.

    Notes
    -----
    Costs a forward pass of every text. Trained in float64 until it converges, so the same seed gives the same weights.
    """
    model: Any = lm.model
    if type(model).__name__ != "BertModel":
        raise UnsupportedModelError(f"{lm.name}: wanted a BertModel to put classes on, got a {type(model).__name__}")
    made = prompts(kind, texts + held_out, seed, labelled=True)
    states, labels = _states(lm, made), torch.tensor([prompt.label for prompt in made])
    if len(labels[:texts].unique()) < 2:
        raise ArgumentError(complaint("texts", wanted="enough that both classes are among them", got=texts))
    pooler = _standardising(states[:texts])
    whole = _assembled(model, pooler, *_regression(_pooled(pooler, states[:texts]), labels[:texts].double()))
    classes = whole.classifier
    with torch.no_grad():
        guessed = classes(_pooled(pooler, states[texts:]).to(classes.weight.dtype)).argmax(1)
    learnt = b"".join(t.detach().cpu().float().numpy().tobytes() for t in (*pooler, classes.weight, classes.bias))
    fingerprint = hashlib.sha256(lm.facts.fingerprint.encode() + learnt).hexdigest()[:16]
    facts = gather_facts(f"{lm.name} ({kind})", whole, fingerprint)
    accuracy = float((guessed == labels[texts:].to(guessed.device)).double().mean())
    return Classifier(LanguageModel(whole, lm.tokenizer, facts), accuracy, texts, held_out)


def _states(lm: LanguageModel, made: Sequence[Prompt]) -> Tensor:
    """Return the first token's last state of every text, (text, width), float64; equally long texts run together."""
    ids = [lm.tokenize(prompt.text).ids for prompt in made]
    model: Any = lm.model
    states: dict[int, Tensor] = {}
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for _, equal in groupby(order, key=lambda i: len(ids[i])):
        alike = list(equal)
        for start in range(0, len(alike), TOGETHER):
            part = alike[start : start + TOGETHER]
            with torch.no_grad():
                batch = torch.tensor([ids[i] for i in part], device=next(model.parameters()).device)
                found = model(input_ids=batch).last_hidden_state[:, 0]
            states |= dict(zip(part, found.double(), strict=True))
    return torch.stack([states[i] for i in range(len(ids))])


def _standardising(states: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a pooler that centres states and gives every coordinate the same width."""
    scale = WIDTH / states.std(0).clamp(min=torch.finfo(torch.float32).eps)
    return scale.diag(), -states.mean(0) * scale


def _pooled(pooler: tuple[Tensor, Tensor], states: Tensor) -> Tensor:
    weight, bias = pooler
    return (states @ weight.T + bias).tanh()


def _regression(pooled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights, (width,), and bias of the logistic regression."""
    pooled = pooled / WIDTH
    weights = torch.zeros(pooled.shape[1] + 1, dtype=torch.float64, device=pooled.device, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        scores = pooled @ weights[:-1] + weights[-1]
        total = F.binary_cross_entropy_with_logits(scores, labels.to(scores.device))
        total = total + DECAY * weights[:-1].square().sum()
        total.backward()
        return total

    with torch.enable_grad():
        optimiser.step(loss)
    learnt = weights.detach()
    return learnt[:-1] / WIDTH, learnt[-1]


def _assembled(model: Any, pooler: tuple[Tensor, Tensor], weights: Tensor, bias: Tensor) -> Any:
    """Put the encoder, a pooler and two classes together; the logit of one class is minus that of the other."""
    from transformers import BertForSequenceClassification

    config = copy.deepcopy(model.config)
    config.num_labels = 2
    with torch.device("meta"):
        whole: Any = BertForSequenceClassification(config)
    whole.bert.embeddings, whole.bert.encoder = model.embeddings, model.encoder
    whole.bert.pooler.dense = _linear(*pooler, model)
    whole.classifier = _linear(torch.stack([-weights, weights]) / 2, torch.stack([-bias, bias]) / 2, model)
    return whole.eval()


def _linear(weight: Tensor, bias: Tensor, like: nn.Module) -> nn.Linear:
    parameter = next(like.parameters())
    linear = nn.Linear(weight.shape[1], weight.shape[0], device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return linear

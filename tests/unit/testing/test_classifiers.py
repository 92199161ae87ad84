"""Two classes on top of an encoder: trained, tested on other texts, and nothing of the encoder changed."""

from typing import Any

import pytest
import torch
from torch import Tensor

from answering import decoder, encoder
from attlas.errors import ArgumentError, UnsupportedModelError
from attlas.explain.prompts import prompts
from attlas.explain.prompts.sentiment import BAD, GOOD
from attlas.testing.classifiers import DECAY, WIDTH, classifier


@pytest.fixture(scope="module")
def lm() -> Any:
    return encoder()


def answer(lm: Any, text: str) -> Tensor:
    with torch.no_grad():
        return lm.model(torch.tensor([lm.tokenize(text).ids])).logits[0]


def test_its_accuracy_is_that_on_texts_that_it_was_not_trained_on() -> None:
    lm = encoder(seed=1)
    model: Any = lm.model
    vocabulary, direction = lm.tokenizer.get_vocab(), torch.randn(32)
    with torch.no_grad():
        for sign, words in ((1, GOOD), (-1, BAD)):
            for word in words:
                model.embeddings.word_embeddings.weight[vocabulary[word]] = sign * direction
    found = classifier(lm, "sentiment", texts=120, held_out=60, seed=5)
    held_out = prompts("sentiment", 180, seed=5, labelled=True)[120:]
    right = [int(answer(found.lm, prompt.text).argmax()) == prompt.label for prompt in held_out]
    assert found.accuracy == pytest.approx(sum(right) / 60)
    assert found.accuracy > 0.75, "good words are all alike to it, and bad ones too"
    assert (found.trained, found.held_out) == (120, 60)


def test_the_logits_are_those_of_the_regularised_regression(lm: Any) -> None:
    found = classifier(lm, "sentiment", texts=80, held_out=20)
    model: Any = found.lm.model
    made = prompts("sentiment", 80, labelled=True)
    with torch.no_grad():
        states = [model.bert(torch.tensor([lm.tokenize(one.text).ids])).last_hidden_state[0, 0] for one in made]
        z = torch.stack(states).double()
        z = ((z - z.mean(0)) / z.std(0) * WIDTH).tanh() / WIDTH
        scores = torch.stack([answer(found.lm, one.text) for one in made]).double()
    weights = (model.classifier.weight[1] - model.classifier.weight[0]).double().detach() * WIDTH
    torch.testing.assert_close(scores[:, 1], -scores[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        scores[:, 1] - scores[:, 0], z @ weights + 2 * model.classifier.bias[1].item(), rtol=1e-4, atol=1e-3
    )
    # At the optimum the gradient of loss and decay is zero: mean((p - y) z) = -2 decay w.
    labels = torch.tensor([float(one.label or 0) for one in made]).double()
    residual = ((scores[:, 1] - scores[:, 0]).sigmoid() - labels) @ z / len(z)
    torch.testing.assert_close(residual, -2 * DECAY * weights, rtol=0, atol=1e-3)


def test_the_encoder_is_shared_and_stays_as_it_was(lm: Any) -> None:
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    found = classifier(lm, "facts", texts=40, held_out=10)
    model: Any = found.lm.model
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.bert.encoder is lm.model.encoder
    assert model.bert.pooler is not lm.model.pooler
    assert not any(parameter.is_meta for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in lm.model.state_dict().items())
    assert lm.model.config.num_labels == model.config.num_labels == 2
    assert found.lm.name == "tiny (facts)"


def test_the_same_seed_gives_the_same_weights_and_fingerprint(lm: Any) -> None:
    one, same, other = (classifier(lm, "agreement", texts=40, held_out=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(answer(one.lm, "The key near the boats"), answer(same.lm, "The key near the boats"))
    assert one.lm.facts.fingerprint == same.lm.facts.fingerprint != other.lm.facts.fingerprint


def test_no_bert_and_one_class_are_refused(lm: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="wanted a BertModel to put classes on, got a LlamaForCausalLM"):
        classifier(decoder(), "sentiment")
    with pytest.raises(ArgumentError, match="texts: wanted enough that both classes are among them, got 1"):
        classifier(lm, "sentiment", texts=1, held_out=10)

"""Which head finds the word that belongs to another: accuracy, against what can be guessed without attention.

The protocol is that of Clark, Khandelwal, Levy and Manning 2019, "What does BERT look at?", section 5: attention
between words, and the most attended other word is taken for the partner. What is added: heads are chosen on one half of
the sentences and measured on the other; so is the fixed offset that they have to beat; intervals are over sentences;
and the bound that decides holds for all heads at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from attlas import __version__
from attlas._intervals import LEVEL, check_resamples
from attlas.capture import LanguageModel
from attlas.capture.batches import SIZE
from attlas.errors import ArgumentError, complaint
from attlas.heads.relations.labelled import LabelledPairs, sentences
from attlas.heads.relations.reading import read_pairs
from attlas.heads.relations.scoring import MARGIN, score
from attlas.heads.relations.table import RelationScores
from attlas.models.progress import Progress
from attlas.results import Provenance


def relation_scores(
    lm: LanguageModel,
    labelled: LabelledPairs | Iterable[LabelledPairs] | None = None,
    *,
    seed: int = 0,
    resamples: int = 1000,
    size: int = SIZE,
    progress: Progress | None = None,
) -> RelationScores:
    """Measure how well each head finds the words that belong together.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned.
    labelled : LabelledPairs, or several, optional
        Sentences with known pairs; the library's own by default.
    seed : int
        Of the library's own sentences, of the halves where `labelled` has none, and of the bootstrap.
    resamples : int
        Bootstrap samples.
    size : int
        Sentences in a batch.
    progress : callable, optional
        Called as ``progress(done, total, "reading sequences")``.

    Returns
    -------
    RelationScores

    Raises
    ------
    ArgumentError
        An option does not fit; the tokenizer cannot tell which characters a token covers.
    DocumentError
        No sentence can be read with the model's tokenizer.
    UnsupportedModelError
        As `attlas.capture`.

    Notes
    -----
    A head predicts that a word's partner is the word that it attends to most, or, in the other direction, that
    attends to it most, itself and special tokens left out. In a decoder words see only earlier ones, so that only one
    direction can be asked of each pair, and is: the later word looks at the earlier.

    The interval is the percentile bootstrap over sentences. The bound that decides is the studentised bootstrap of the
    largest deviation over all heads, directions and relations (Romano and Wolf 2005): with 95 % confidence none of them
    is wrong. A head passes if its bound is more than `MARGIN` above the best of four guesses: fixed offset, fixed
    position, even attention, any word. For the best head of each relation, which was chosen on other sentences, only
    the relations are counted.

    Costs one forward pass over the sentences and about a quarter more: 23 s of one core for 300 sentences with
    SmolLM2-135M, of which the pass alone takes 18.
    """
    check_resamples(resamples)
    given = _given(labelled, seed)
    readings = read_pairs(lm, given, size=size, progress=progress)
    settings = {
        **readings.settings,
        "labelled": given.origin,
        "labelled_fingerprint": given.fingerprint,
        "skipped": dict(readings.skipped),
        "seed": seed,
        "resamples": resamples,
        "margin": MARGIN,
        "level": LEVEL,
    }
    provenance = Provenance(__version__, lm.name, lm.facts.fingerprint, settings)
    return score(readings, given, seed=seed, resamples=resamples, provenance=provenance)


def _given(labelled: LabelledPairs | Iterable[LabelledPairs] | None, seed: int) -> LabelledPairs:
    if labelled is None:
        return sentences(seed=seed)
    if isinstance(labelled, LabelledPairs):
        return labelled
    several = list(labelled)
    if not all(isinstance(one, LabelledPairs) for one in several):
        raise ArgumentError(complaint("labelled", wanted="LabelledPairs, or several", got=type(several[0]).__name__))
    return LabelledPairs.join(several)

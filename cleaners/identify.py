"""Which language a caption is in: how likely its dataset's language is, beside the one that is likeliest.

The rule of characters lets "coque iphone 8 papillon" pass as English: all its letters are. Here naive Bayes over byte
n-grams tells 139 languages apart (Lui and Baldwin 2012, as retrained for the package py3langid, which holds the model).
Odds, not the likeliest language: names and lists of brands are likely in no language, and must stay.
"""

from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import pyarrow as pa

from cleaners.filters import Judged
from corpus.languages import Language
from corpus.rules import Parameter, Rule

MAX_CHARACTERS = 1000  # of a text; what lies beyond is not looked at
UNKNOWN = float("nan"), ""


def odds(text: str, codes: Iterable[str]) -> tuple[float, str]:
    """Return (likelihood of the likeliest of `codes` over that of all languages, 0 to 1; the likeliest of all).

    NaN where the model knows none of `codes`.
    """
    model = _model()
    own = {code.partition("-")[0] for code in codes}.intersection(model.labels)
    if not own:
        return UNKNOWN
    likelihood = dict(model.rank(text[:MAX_CHARACTERS]))
    best = max(likelihood, key=likelihood.__getitem__)
    return round(max(likelihood[code] for code in own) / likelihood[best], 6), best


@cache
def _model():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def other_language(columns: Mapping, rows: np.ndarray, *, language: Language, min: float) -> Judged:
    """Drop captions that are far likelier in another language; the detail names it."""
    texts = columns["text"].take(pa.array(rows)).to_pylist()
    found = [odds(text, (language.code, *language.among)) for text in texts]
    value = np.array([each for each, _ in found], np.float64)
    likeliest = pa.array([best for _, best in found], pa.string())
    return Judged(value < min, value, min, {"language_odds": value}, lambda lost: likeliest.take(pa.array(lost)))


# Not the paper's. Off unless a catalog or --rule names it.
RULE = Rule(
    name="other_language", says="captions that are far likelier in another language", apply=other_language,
    parameters={"min": Parameter(default=0.01, score="language_odds", bound="min", source="ours, on labelled lines")},
)  # fmt: skip

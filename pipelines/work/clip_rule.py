"""Rule 3 with a score of our own: the pairs that all other rules kept and that came without one meet the model."""

import pyarrow as pa

from cleaners import clip, rules
from corpus.catalog import Dataset
from corpus.ledger import KEPT
from corpus.readers.pairs import Pair
from corpus.records import BadImage


class ClipRule:
    """A loaded model and the dataset whose threshold it serves."""

    def __init__(self, model: clip.Clip, dataset: Dataset, decoders: int):
        self._model, self._dataset, self._decoders = model, dataset, decoders

    def judge(self, batch: list[Pair], verdicts: pa.Table) -> pa.Table:
        """Score the kept pairs that have no score, and return the verdicts with the rule applied to them.

        Sets `clip_score` of these pairs, or `problem` where the image cannot be decoded.
        """
        outcomes, texts = verdicts["outcome"].to_pylist(), verdicts["text_after"].to_pylist()
        rows = [i for i, pair in enumerate(batch) if outcomes[i] == KEPT and pair.clip_score is None]
        scores = clip.score_stream(self._model, ((batch[i].image, texts[i]) for i in rows), self._decoders)
        for i, score in zip(rows, list(scores), strict=True):
            if isinstance(score, BadImage):
                batch[i].problem, batch[i].detail = score.kind, str(score)
            else:
                batch[i].clip_score = round(score, 6)
        return self._replace(verdicts, rows, [batch[i].clip_score for i in rows])

    def _replace(self, verdicts: pa.Table, rows: list[int], scores: list[float | None]) -> pa.Table:
        measured = pa.table({"clip_score": pa.array(scores, pa.float64())})
        settings = {"clip_score": self._dataset.rules["clip_score"]}
        judged = rules.clean(measured, settings, language=self._dataset.spoken).to_pylist()
        columns = {name: verdicts[name].to_pylist() for name in verdicts.column_names}
        for name in ("outcome", "rule", "value", "threshold", "detail", "clip_score"):
            for i, verdict in zip(rows, judged, strict=True):
                columns[name][i] = verdict[name]
        return pa.table(columns, schema=verdicts.schema)

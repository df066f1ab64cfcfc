"""What became of a row: kept, dropped by a rule at a value against a threshold, or an error of a kind with a detail."""

from dataclasses import dataclass

KEPT, DROPPED, ERROR = "kept", "dropped", "error"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ledger's columns that say what became of a row. `rule` is the rule that dropped it, or the kind of error."""

    outcome: str
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


class Lost(Exception):
    """Carries the verdict on a row that cannot be kept to where the ledger is written; its text is the detail."""

    def __init__(self, verdict: Verdict):
        super().__init__(verdict)
        self.verdict = verdict

    @property
    def kind(self) -> str:
        """The rule that dropped the row, or the kind of error."""
        return self.verdict.rule

    def __str__(self) -> str:
        return self.verdict.detail or ""


def dropped(
    rule: str, value: float | None = None, threshold: float | None = None, detail: str | None = None
) -> Verdict:
    """The verdict of a row that a rule dropped."""
    return Verdict(DROPPED, rule, value, threshold, detail)


def failed(kind: str, detail: str = "") -> Verdict:
    """The verdict of a row that could not be read or shown."""
    return Verdict(ERROR, kind, detail=detail)

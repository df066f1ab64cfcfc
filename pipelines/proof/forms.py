"""The sizes of the learning proof, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StageForm:
    """How one stage trains. `batch` counts samples; `flags` are further flags of the trainer."""

    samples: int  # of the mixture
    steps: int
    batch: int
    peak_lr: float
    warmup: int
    flags: str = ""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One size of the proof. `pictures`: how many are drawn for each task; `questions`: held-out ones for each.

    rows: of the tokenizer. max_tokens: of a pack. chains: how many run at once.
    """

    size: str
    level: str
    queries: int
    rows: int
    max_tokens: int
    micro_packs: int
    answer_tokens: int
    chains: int
    questions: int
    pictures: dict[str, int]
    stages: dict[int, StageForm]


# The paper freezes a language model that 3 trillion tokens have taught. Ours knows nothing when it starts, so all parts
# train in stage 1.
_ALL = "--trains vision adapter language"
TASKS = ("caption", "grounded_caption", "referring", "region_caption", "vqa", "ocr", "chat")

FORMS = {
    # A minute: captions of one thing or one word. What `make test` runs.
    "short": Form(
        size="tiny", level="single", queries=16, rows=576, max_tokens=256, micro_packs=64, answer_tokens=24, chains=2,
        questions=200, pictures={"caption": 4000},
        stages={1: StageForm(samples=8000, steps=260, batch=32, peak_lr=1.5e-3, warmup=40, flags=_ALL)},
    ),
    # A quarter of an hour on two cores.
    "cpu": Form(
        size="tiny", level="easy", queries=16, rows=640, max_tokens=256, micro_packs=64, answer_tokens=90, chains=2,
        questions=400,
        pictures={"caption": 16000, "grounded_caption": 10000, "referring": 18000, "region_caption": 8000, "vqa": 12000,
                  "ocr": 20000, "chat": 8000},
        stages={
            1: StageForm(samples=16000, steps=900, batch=32, peak_lr=1.5e-3, warmup=60, flags=_ALL),
            2: StageForm(samples=48000, steps=2400, batch=32, peak_lr=1.5e-3, warmup=60),
            3: StageForm(samples=16000, steps=400, batch=32, peak_lr=5e-4, warmup=30),
        },
    ),
    # For one H100: every shape, colour and word, up to five things.
    "gpu": Form(
        size="small", level="full", queries=64, rows=1024, max_tokens=2048, micro_packs=8, answer_tokens=256, chains=1,
        questions=1000, pictures=dict.fromkeys(TASKS, 40000),
        stages={
            1: StageForm(samples=40000, steps=1200, batch=256, peak_lr=6e-4, warmup=100, flags=_ALL),
            2: StageForm(samples=280000, steps=3000, batch=256, peak_lr=6e-4, warmup=100),
            3: StageForm(samples=40000, steps=300, batch=64, peak_lr=1e-4, warmup=30),
        },
    ),
}  # fmt: skip

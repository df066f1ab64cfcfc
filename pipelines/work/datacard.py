"""What a stage folder is made of, for people (`DATACARD.md`, with a Hugging Face header) and machines.

The machines' is `croissant.json`. Same data, same bytes: neither holds a date or a place on this machine.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from corpus import packs
from corpus.catalog import Dataset
from corpus.folder import VERSION, OutputFolder
from corpus.ledger import Counts
from corpus.licences import Licence, clashes, read_licence
from corpus.mixture import Share
from corpus.rules import RuleTable
from corpus.seals import digest
from pipelines.engine.quarantine import lacks
from pipelines.work.croissant import croissant
from pipelines.work.datasets import rules_of_folder

CARD, CROISSANT = "DATACARD.md", "croissant.json"
_HF_TASKS = {
    "caption": "image-to-text", "grounded_caption": "image-to-text", "region_caption": "image-to-text",
    "vqa": "visual-question-answering", "ocr_vqa": "visual-question-answering", "referring": "object-detection",
    "ocr": "image-to-text", "text": "text-generation", "chat": "image-text-to-text",
}  # fmt: skip
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip


@dataclass
class Source:
    """One dataset of a stage: what it is, what its cleaning did, and what of it entered."""

    name: str
    licence: Licence
    language: str
    tasks: dict[str, dict]  # task -> counts in the stage
    settings: Mapping  # of the job that made the cleaned folder
    counts: Counts  # of the cleaned folder
    inputs: int  # files or slices that were read
    digest: str  # of its cleaned shards
    thresholds: list[tuple[str, object, str]]  # rule.parameter, value, who gave it
    lacks: list[str]  # what the cleaned folder lacks of its input
    among: tuple[str, ...]  # languages that are commonly among its own
    by_row: Mapping[str, Mapping[str, int]]  # licence -> counts, where each row has its own

    @property
    def licences(self) -> dict[str, Licence]:
        """The licences by the dataset's name; those of its rows by that and a number."""
        rows = {f"{self.name} {i}": read_licence(name) for i, name in enumerate(self.by_row, 1)}
        return rows or {self.name: self.licence}

    @property
    def samples(self) -> int:
        """Samples in the stage, copies counted."""
        return sum(counts["samples"] for counts in self.tasks.values())

    @property
    def tokens(self) -> int:
        """Tokens in the stage."""
        return sum(counts["tokens"] for counts in self.tasks.values())


def write_cards(
    folder: OutputFolder,
    record: Mapping,
    catalog: Mapping[str, Dataset],
    data: str,
    mixture: Sequence[Share],
    flags: str,
) -> list[Source]:
    """Write both files of a stage folder whose `corpus.json` is `record`; return its sources.

    `data` holds the cleaned folders; `flags` are those of the command that made the stage.
    """
    sources = [
        _source(catalog[name], tasks, OutputFolder(f"{data}/{name}"), record.get("licences", {}).get(name, {}))
        for name, tasks in record["datasets"].items()
    ]
    manifests = list(folder.manifests().values())
    left = [share for share in mixture if not share.available]
    card = card_text(record, sources, sum((m.counts for m in manifests), Counts()), left, flags)
    folder.write(CARD, card.encode())
    name = f"stage {record['stage']} of " + ", ".join(source.name for source in sources)
    licences = sorted(_licences(sources))
    described = croissant(name, record, manifests, licences, sorted({source.language for source in sources}))
    folder.write(CROISSANT, json.dumps(described, indent=1, ensure_ascii=False).encode())
    return sources


def _source(dataset: Dataset, tasks: Mapping, folder: OutputFolder, by_row: Mapping) -> Source:
    settings, every = folder.settings(), folder.manifests()
    return Source(
        name=dataset.name, licence=read_licence(dataset.licence), language=dataset.language, tasks=dict(tasks),
        settings=settings, counts=sum((m.counts for m in every.values()), Counts()), inputs=len(every),
        digest=digest([m.files for m in every.values()])[:16], thresholds=_thresholds(settings, dataset),
        lacks=lacks(folder), among=dataset.spoken.among, by_row=by_row,
    )  # fmt: skip


def _thresholds(settings: Mapping, dataset: Dataset) -> list[tuple[str, object, str]]:
    table = rules_of_folder({**settings, "plugins": None}) or RuleTable("", [])
    found = []
    for rule, given in table.active(settings.get("rules", {})).items():
        for name, value in given.items():
            if rule in table and name in table[rule].parameters:
                parameter = table[rule].parameters[name]
                own = parameter.source or "its default"
                found.append((f"{rule}.{name}", value, own if value == parameter.default else "the catalog or a flag"))
    return found


def card_text(record: Mapping, sources: Sequence[Source], counts: Counts, absent: Sequence[Share], flags: str) -> str:
    """Return the card of a stage folder."""
    licences = {name: licence for source in sources for name, licence in source.licences.items()}
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template.filters["cell"] = _cell
    return template.get_template("datacard.md.jinja").render(
        record=record, sources=sources, counts=counts, absent=absent, flags=flags, version=VERSION,
        clashes=list(clashes(licences)),
        languages=_summed((source.language, source.samples, source.tokens) for source in sources),
        licences=_licences(sources), header=header(record, sources), corpus=packs.CORPUS,
    )  # fmt: skip


def header(record: Mapping, sources: Sequence[Source]) -> str:
    """Return the YAML of a Hugging Face card."""
    names = sorted(_licences(sources))
    known = len(names) == 1 and not names[0].startswith("LicenseRef-")
    size = next((name for most, name in _SIZES if record["samples"] < most), "n>1B")
    languages = sorted({code for source in sources for code in (source.language, *source.among)})
    lines = ["license: " + (names[0].lower() if known else "other")]
    lines += [] if known else ["license_name: mixed", "license_link: DATACARD.md"]
    lines += ["language:", *(f"- {code}" for code in languages), f"pretty_name: stage {record['stage']}"]
    tasks = sorted({_HF_TASKS[task] for task in record["tasks"]})
    return "\n".join([*lines, "size_categories:", f"- {size}", "task_categories:", *(f"- {task}" for task in tasks)])


def _licences(sources: Sequence[Source]) -> dict[str, tuple[int, int]]:
    """Return samples and tokens by licence, those of rows with their own by these."""
    whole = [(source.licence.spdx, source.samples, source.tokens) for source in sources if not source.by_row]
    rows = [(read_licence(name).spdx, counts["samples"], counts["tokens"])
            for source in sources for name, counts in source.by_row.items()]  # fmt: skip
    return _summed(whole + rows)


def _summed(told: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Add up (label, samples, tokens) by label, sorted."""
    found: dict[str, tuple[int, int]] = {}
    for label, samples, tokens in told:
        before = found.get(label, (0, 0))
        found[label] = before[0] + samples, before[1] + tokens
    return dict(sorted(found.items()))


def _cell(text) -> str:
    """Write a value where a bar or a line's end would break a table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def build_flags(args) -> str:
    """Return the flags that make the same stage again, over folders of the names that the docs use."""
    given = {"--samples": args.samples, "--licences": args.licences, "--limit": args.limit}
    given |= {"--max-images": args.max_images, "--of": args.of if args.of != "listed" else None}
    given |= {"--dataset": " ".join(args.dataset) if args.dataset else None, "--seed": args.seed or None}
    given |= {"--no-guard": None if args.no_guard is None else " ".join(args.no_guard)}
    given |= {"--queries": args.queries, "--max-tokens": args.max_tokens, "--data": "cleaned"}
    told = [f"{flag} {value}".strip() for flag, value in given.items() if value is not None]
    return f"--stage {args.stage} {' '.join(told)} --output stage{args.stage}"

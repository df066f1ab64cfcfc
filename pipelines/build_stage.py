#!/usr/bin/env python
"""From cleaned data to the packed, task-tagged shards of a training stage, by catalog.yaml.

Reads the cleaned folders ROOT/<dataset> that the catalog lists for the stage, chooses samples by hash and weight, gives
each task its text format and loss mask, tokenises, packs whole samples of one task into sequences and writes shards,
ledgers, manifests, a copy of the tokenizer and corpus.json.
"""

import argparse
import math
import sys
import tempfile
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import fsspec
import pyarrow.compute as pc

from corpus import packs
from corpus.catalog import find
from corpus.folder import Manifest, OutputFolder
from corpus.ledger import KEPT
from corpus.mixture import Share, shares
from corpus.splits import Split
from corpus.stages import STAGES
from corpus.tokens import SPECIALS, load_tokenizer
from pipelines.engine import job
from pipelines.engine.quarantine import lacks
from pipelines.work import guards
from pipelines.work.datacard import build_flags, write_cards
from pipelines.work.datasets import whole_catalog
from pipelines.work.licensing import COLUMN, RowLicence, licences_of, licensed, print_clashes, row_licence
from pipelines.work.stage import SCORES, Recipe, build_split

MAX_TOKENS = 2048
SAMPLES_PER_SPLIT = 10_000  # chosen ones; packs are planned within a split (docs/stages.md tells what that costs)
ROWS_PER_SPLIT = 500_000  # cleaned ones: where few are chosen, a split's ledger stays small all the same
SLICES_PER_SPLIT = 256  # each keeps a shard open
_EXAMPLE = "python pipelines/build_stage.py --stage 2 --data demo/cleaned --output demo/stage2"


def main() -> None:
    args = make_parser().parse_args()
    catalog = whole_catalog(args.catalog)
    chosen = {name: find(catalog, name) for name in args.dataset} if args.dataset else catalog
    chosen = licensed(chosen, args.licences)
    data = args.data if "://" in args.data else str(Path(args.data).resolve())
    there = _folders(data)
    cleaned = {name: _cleaned(f"{data}/{name}", args.unfinished) if name in there else {} for name in chosen}
    present, of_present = _available(cleaned), args.of == "present"
    mixture = shares(catalog if args.samples else chosen, args.stage, present, args.samples, of_present=of_present)
    mixture = [share for share in mixture if share.dataset in chosen]
    _print_mixture(args.stage, mixture)
    print_clashes(catalog[name] for name in dict.fromkeys(share.dataset for share in mixture if share.expected))
    if not any(share.expected for share in mixture):
        names = ", ".join(sorted({share.dataset for share in mixture})) or "none"
        raise job.UserError(f"{data} holds no cleaned data for stage {args.stage}; its datasets are {names}")
    used = dict.fromkeys(share.dataset for share in mixture if share.expected)
    spoken = {chosen[name].language: chosen[name].spoken for name in used if chosen[name].own_language}
    recipe = replace(recipe_of(args), languages=spoken)
    guarded = guards.of_stage(args, ((chosen[name], f"{data}/{name}") for name in used))
    by_row = {name: found for name in used if (found := row_licence(chosen[name], args.licences))}
    job.run(
        "build_stage", args, list(_plan(data, mixture, cleaned, by_row)), _settings(args, mixture, recipe, guarded),
        lambda split, sink: build_split(split, sink, recipe), scores=SCORES | (COLUMN if by_row else {}),
    )  # fmt: skip
    record = finish(args.output, args.stage, args.tokenizer, recipe, mixture, guarded, by_row)
    write_cards(OutputFolder(args.output), record, catalog, data, mixture, build_flags(args))
    _print_corpus(record)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, reads_input=False, many_datasets=True, reads_images=True)
    parser.add_argument("--stage", type=int, choices=sorted(STAGES), required=True, help="which stage of the catalog")
    parser.add_argument("--data", required=True, metavar="ROOT", help="folder with one cleaned folder per dataset")
    parser.add_argument("--samples", type=int, metavar="N", help="scale the catalog's numbers to N samples in all")
    parser.add_argument(
        "--of", choices=("listed", "present"), default="listed",
        help="what the N --samples are divided among: all datasets that the catalog lists for the stage, where what is "
        "absent leaves its share empty (listed, the default), or those that are there alone (present)",
    )  # fmt: skip
    parser.add_argument(
        "--licences", metavar="NAMES", help="only datasets under these, with commas between: 'CC-BY-*,CC0'; at the end "
        "-* is any version, so that CC-BY-* is not CC-BY-NC-4.0",
    )  # fmt: skip
    parser.add_argument("--tokenizer", metavar="PATH", help="*.tiktoken, Hugging Face folder or name; default: our own")
    parser.add_argument("--queries", type=int, default=256, metavar="Q", help="tokens of an image; default: 256")
    parser.add_argument("--max-tokens", type=int, default=MAX_TOKENS, metavar="L", help="of a pack; default: 2048")
    parser.add_argument("--max-images", type=int, metavar="M", help="images in a pack; default: as many as have room")
    parser.add_argument(
        "--legible-at", type=int, default=0, metavar="PIXELS",
        help="leave out OCR samples of any source that cannot be read when squashed to this size; default: none",
    )  # fmt: skip
    parser.add_argument(
        "--unfinished", action="store_true", help="build from what is there of datasets whose cleaning has not finished"
    )
    guards.add_guard_flag(parser)
    return parser


def _folders(root: str) -> set[str]:
    """Return the names of what lies in a folder, from one listing; an absent folder is empty."""
    fs, path = fsspec.core.url_to_fs(root)
    fs.invalidate_cache()
    try:
        return {name.rstrip("/").rpartition("/")[2] for name in fs.ls(path, detail=False)}
    except FileNotFoundError:
        return set()


def _cleaned(folder: str, unfinished: bool) -> dict[str, Manifest]:
    """Return the manifests of a cleaned folder's splits that hold samples; an absent folder has none.

    Raises UserError for one whose job is under way, or was stopped, unless `unfinished`.
    """
    output = OutputFolder(folder)
    if not output.fs.exists(output.path("job.json")):
        return {}
    for lack in lacks(output):
        print(f"warning: {folder}: {lack}")
    if not unfinished and output.planned() is not None:
        raise job.UserError(f"{folder} is not finished: run its command to the end, or give --unfinished")
    manifests = {split: manifest for split, manifest in output.manifests().items() if manifest.counts.kept}
    if any("tar" not in manifest.files for manifest in manifests.values()):
        raise job.UserError(f"{folder} holds lists of URLs, no images: download them first (pipelines/fetch_images.py)")
    return manifests


def _available(cleaned: dict[str, dict[str, Manifest]]) -> dict[str, int]:
    return {name: sum(m.counts.kept for m in splits.values()) for name, splits in cleaned.items() if splits}


def recipe_of(args) -> Recipe:
    """Return what the flags say of packs. UserError for a tokenizer that is not there, or no room for text."""
    longest = min(STAGES[args.stage].max_tokens, args.max_tokens)
    if args.queries < 1 or args.queries + 2 >= longest:
        raise job.UserError(f"--queries {args.queries}: an image must leave room for text in a sample of {longest}")
    spec = args.tokenizer
    if spec is not None and Path(spec).exists():
        spec = str(Path(spec).resolve())
    try:
        tokenizer = load_tokenizer(spec)
    except ValueError as error:
        raise job.UserError(str(error)) from None
    return Recipe(
        tokenizer=spec,
        fingerprint=tokenizer.fingerprint,
        queries=args.queries,
        max_tokens=args.max_tokens,
        max_sample_tokens=longest,
        max_images=min(args.max_tokens // (args.queries + 2), args.max_images or args.max_tokens),
        seed=args.seed,
        limit=args.limit,
        legible_at=args.legible_at,
    )


def _settings(args, mixture: list[Share], recipe: Recipe, guarded: dict) -> dict:
    weights = {f"{share.dataset} {share.task}": share.weight for share in mixture}
    # Where the tokenizer lies does not matter; what it does is in its fingerprint.
    told = {name: value for name, value in asdict(recipe).items() if name not in ("tokenizer", "limit", "languages")}
    if recipe.languages:
        told["languages"] = {code: language.entry() for code, language in recipe.languages.items()}
    return {"stage": args.stage, "samples": args.samples, "weights": weights, "guards": guarded, **told}


def _plan(
    data: str, mixture: list[Share], cleaned: dict[str, dict[str, Manifest]], by_row: Mapping[str, RowLicence]
) -> Iterator[Split]:
    """Yield splits: for one task, slices of cleaned splits, of bounded size.

    All that is taken once comes first, then the second copies, and so on: the copies of a sample lie far apart.
    """
    for task in dict.fromkeys(share.task for share in mixture):
        of_task = [share for share in mixture if share.task == task and share.weight]
        pieces = (
            piece for copy in range(math.ceil(max((share.weight for share in of_task), default=0)))
            for share in of_task if copy < share.weight
            for piece in _pieces(f"{data}/{share.dataset}", share, copy, cleaned[share.dataset], by_row)
        )  # fmt: skip
        for number, slices in enumerate(_groups(pieces)):
            # What the slices hold, not where they lie: cleaned data may be moved.
            held = [
                {**piece, "folder": None, "tar": cleaned[piece["dataset"]][piece["split"]].files["tar"]}
                for piece in slices
            ]
            yield Split(f"{task}-{number:05d}", {"task": task, "slices": slices}, {"slices": held})


def _pieces(
    folder: str, share: Share, copy: int, manifests: dict[str, Manifest], by_row: Mapping[str, RowLicence]
) -> Iterator[dict]:
    """Cut a dataset's cleaned splits into slices that are not too large for a split of ours."""
    licence = {"licence": asdict(by_row[share.dataset])} if share.dataset in by_row else {}
    step = max(1, min(ROWS_PER_SPLIT, int(SAMPLES_PER_SPLIT / min(1, share.weight - copy))))
    for split, manifest in manifests.items():
        for start in range(0, manifest.counts.kept, step):
            stop = min(start + step, manifest.counts.kept)
            where = {"folder": folder, "dataset": share.dataset, "split": split, **licence}
            yield where | {"start": start, "stop": stop, "weight": share.weight, "copy": copy}


def _groups(pieces: Iterable[dict]) -> Iterator[list[dict]]:
    group, samples, rows = [], 0.0, 0
    for piece in pieces:
        more = piece["stop"] - piece["start"]
        taken = more * min(1, piece["weight"] - piece["copy"])
        full = samples + taken > SAMPLES_PER_SPLIT or rows + more > ROWS_PER_SPLIT or len(group) == SLICES_PER_SPLIT
        if group and full:
            yield group
            group, samples, rows = [], 0.0, 0
        group.append(piece)
        samples, rows = samples + taken, rows + more
    if group:
        yield group


def finish(
    output: str, stage: int, spec: str | None, recipe: Recipe, mixture: list[Share], guarded: dict[str, dict | None],
    by_row: Collection[str] = (),
) -> dict:  # fmt: skip
    """Write the tokenizer's copy and `corpus.json`, which makes the folder readable; return the record.

    The rows of the datasets `by_row` have licences of their own, which it counts.
    """
    folder = OutputFolder(output)
    _copy_tokenizer(spec, folder)
    shards, by_dataset, manifests = [], {}, folder.manifests()
    with ThreadPoolExecutor(16) as pool:  # a large stage has a hundred thousand ledgers
        counted = list(pool.map(lambda manifest: _count_packs(folder, manifest), manifests.values()))
    for (split, manifest), (counts, datasets) in zip(manifests.items(), counted, strict=True):
        shards.append({"id": split, "task": split.rpartition("-")[0], **counts, "sha256": manifest.files["tar"]})
        for name, numbers in datasets.items():
            _add(by_dataset.setdefault(name, {}).setdefault(shards[-1]["task"], {}), numbers)
    record = _record(stage, load_tokenizer(spec).special, recipe, shards, by_dataset, mixture)
    record["guards"] = guarded  # dataset -> what kept evaluation images out of it; null: nobody recorded it
    if by_row:
        record["licences"] = licences_of(folder, manifests.values())
    folder.write(packs.CORPUS, packs.write_corpus(record))
    return record


def _copy_tokenizer(spec: str | None, folder: OutputFolder) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / packs.TOKENIZER
        load_tokenizer(spec).save(copy)
        target = folder.path(packs.TOKENIZER)
        if folder.fs.exists(target):
            folder.fs.rm(target, recursive=True)
        folder.fs.makedirs(target, exist_ok=True)
        for file in sorted(copy.iterdir()):
            folder.fs.put_file(str(file), f"{target}/{file.name}")


def _count_packs(folder: OutputFolder, manifest: Manifest) -> tuple[dict, dict[str, dict]]:
    """Return a split's counts, and those by dataset, from its ledger."""
    columns = ["outcome", "pack", "dataset", "tokens", "supervised", "images"]
    table = folder.table(manifest, columns=columns)
    kept = table.filter(pc.equal(table["outcome"], KEPT))
    summed = [("tokens", "sum"), ("supervised", "sum"), ("images", "sum"), ([], "count_all")]
    datasets = {
        row["dataset"]: {
            "samples": row["count_all"],
            **{name: row[f"{name}_sum"] for name in ("tokens", "supervised", "images")},
        }
        for row in kept.group_by("dataset", use_threads=False).aggregate(summed).to_pylist()
    }
    counts = {"packs": (pc.max(kept["pack"]).as_py() or 0) + 1 if kept.num_rows else 0}
    for numbers in datasets.values():
        _add(counts, numbers)
    return {name: counts.get(name, 0) for name in packs.COUNTED}, datasets


def _add(total: dict, numbers: dict) -> None:
    for name, value in numbers.items():
        total[name] = total.get(name, 0) + value


def _record(stage: int, special: dict, recipe: Recipe, shards: list, by_dataset: dict, mixture: list[Share]) -> dict:
    tasks = {}
    for shard in shards:
        _add(tasks.setdefault(shard["task"], {}), {name: shard[name] for name in packs.COUNTED})
    for counts in tasks.values():
        counts["padding"] = packs.padding(counts["tokens"], counts["packs"], recipe.max_tokens)
    total = {name: sum(shard[name] for shard in shards) for name in packs.COUNTED}
    record = {
        "format": packs.FORMAT, "stage": stage, "digest": None, "queries": recipe.queries, "seed": recipe.seed,
        "max_tokens": recipe.max_tokens, "max_sample_tokens": recipe.max_sample_tokens, "max_images": recipe.max_images,
        "tokenizer": {"fingerprint": recipe.fingerprint, "special": {name: special[name] for name in SPECIALS}},
        **total, "padding": packs.padding(total["tokens"], total["packs"], recipe.max_tokens),
        "tasks": tasks, "datasets": dict(sorted(by_dataset.items())),
        "mixture": [asdict(share) for share in mixture], "shards": shards,
    }  # fmt: skip
    return record | {"digest": packs.corpus_digest(record)}


def _print_mixture(stage: int, mixture: list[Share]) -> None:
    print(f"\nstage {stage}: what the catalog lists, what is there, what is taken")
    print(f"{'dataset':<20}{'task':<18}{'listed':>13}{'wanted':>13}{'there':>12}{'taken':>12}")
    for share in mixture:
        if share.available:
            numbers = f"{share.listed:>13,}{share.wanted:>13,}{share.available:>12,}{share.expected:>12,}"
            print(f"{share.dataset:<20}{share.task:<18}{numbers}  {_note(share)}".rstrip())
    missing = [share for share in mixture if not share.available]
    if missing:
        part = sum(share.listed for share in missing) / sum(share.listed for share in mixture)
        names = ", ".join(dict.fromkeys(share.dataset for share in missing))
        text = f"MISSING, and nothing takes their place ({100 * part:.3g} % of the listed samples): {names}"
        print(textwrap.fill(text, 110, subsequent_indent="  ", break_on_hyphens=False))


def _note(share: Share) -> str:
    if share.weight > 1:
        return f"each {share.weight:.1f} times"
    return f"{100 * share.weight:.2g} % of it" if share.weight < 1 else ""


def _print_corpus(record: dict) -> None:
    for name, guard in record["guards"].items():
        if guard and guard["unguarded"]:
            print(f"NOT GUARDED against images of {', '.join(guard['unguarded'])}: {name}")
    print(f"\n{'task':<18}{'packs':>10}{'samples':>12}{'tokens':>14}{'supervised':>14}{'images':>10}{'padding':>9}")
    for task, counts in [*record["tasks"].items(), ("all", record)]:
        print(f"{task:<18}{counts['packs']:>10,}{counts['samples']:>12,}{counts['tokens']:>14,}", end="")
        print(f"{counts['supervised']:>14,}{counts['images']:>10,}{100 * counts['padding']:>8.2f}%")


if __name__ == "__main__":
    job.main(main)

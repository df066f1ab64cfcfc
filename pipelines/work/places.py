"""Which datasets a cleaning job takes, and where they lie: what its flags say, else what the catalog says is there."""

import argparse
from collections.abc import Callable, Mapping
from copy import copy

from corpus.catalog import CatalogError, Dataset
from pipelines.engine import cluster, job
from pipelines.work.datasets import dataset_of, whole_catalog

_FORMS = """\
Three forms:
  {example}
      one dataset, with its places
  {command} --dataset {dataset}
      one dataset, with the places that its entry in the catalog names
  {command}
      every {name} dataset of the catalog whose raw data are there
An entry of a catalog of your own (--catalog mine.yaml; docs/datasets.md) names places so:
  extends: default
  {dataset}: {{input: '/data/raw/{dataset}/*', output: /data/cleaned/{dataset}}}"""
_UPLOADED = (
    "This job runs in Ray's own copy of the working directory, which holds no raw data: give absolute paths or URLs, "
    "as `data: /path` in the catalog does for all of it."
)


def clean_each(name: str, args: argparse.Namespace, clean: Callable[[argparse.Namespace, Dataset], None]) -> None:
    """Call `clean` with the flags and the catalog entry of each dataset that the job `name` is to clean.

    With flags that is one; what they leave open (input, images, output) its catalog entry says. Without, every dataset
    of the job whose raw data are there; one that the user must mend does not keep the others waiting.
    """
    if any((args.dataset, args.input, args.output)):
        clean(*_filled(args, dataset_of(_named(args), name)))
        return
    found, skipped = _there(name, args)
    _print_plan(found, skipped)
    if not found:
        raise job.UserError(_nothing(name, args, skipped))
    wrong, left = {}, []
    for dataset in found:
        print(f"\n{dataset}", flush=True)
        one = copy(args)
        one.dataset = dataset
        try:
            clean(*_filled(one, dataset_of(one, name)))
        except (job.UserError, CatalogError) as error:
            print(f"{dataset}: {error}", flush=True)
            wrong[dataset] = error
        except job.Quarantined as error:
            left.append(str(error))
    if wrong:
        told = "".join(f"\n  {dataset}: {error}" for dataset, error in wrong.items())
        raise job.UserError("\n".join([f"{len(wrong)} of {len(found)} datasets were not cleaned:{told}", *left]))
    if left:
        raise job.Quarantined("\n".join(left))


def _named(args: argparse.Namespace) -> argparse.Namespace:
    args.dataset = args.dataset or args.usual_dataset
    if args.dataset is None:
        raise job.UserError("--dataset is missing: --input and --output are of one dataset")
    return args


def _filled(args: argparse.Namespace, dataset: Dataset) -> tuple[argparse.Namespace, Dataset]:
    """Complete the flags with what the entry says of its places."""
    if not args.input:
        args.input, why = _present(dataset)
        if not args.input:
            hint = f" {_UPLOADED}" if cluster.in_uploaded_folder() else ""
            raise job.UserError(f"--input is missing, and {dataset.name}: {why}.{hint}")
    args.output = args.output or dataset.output
    if "images" in args and args.images is None:
        args.images = dataset.images
    return args, dataset


def _there(name: str, args: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Return the datasets of a job whose raw data are there -> where they go, and the others -> why not."""
    found: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for dataset in whole_catalog(args.catalog).values():
        if dataset.job == name:
            patterns, why = _present(dataset)
            (found if patterns else skipped)[dataset.name] = dataset.output if patterns else why
    return found, skipped


def _present(dataset: Dataset) -> tuple[list[str], str]:
    """Return those of an entry's inputs that match files, and why there are none."""
    if not dataset.input:
        return [], "its catalog entry names no `input`"
    patterns = [pattern for pattern in dataset.input if job.is_there(pattern)]
    return patterns, "" if patterns else f"no file matches {' or '.join(dataset.input)}"


def _print_plan(found: Mapping[str, str], skipped: Mapping[str, str]) -> None:
    for dataset, output in found.items():
        print(f"cleaning {dataset} to {output}")
    for dataset, why in skipped.items():
        print(f"skipping {dataset}: {why}", flush=True)


def _nothing(name: str, args: argparse.Namespace, skipped: Mapping[str, str]) -> str:
    dataset = next(iter(skipped), args.usual_dataset or "mine")
    forms = _FORMS.format(example=args.example, command=f"python pipelines/{name}.py", name=name, dataset=dataset)
    hint = f" {_UPLOADED}" if cluster.in_uploaded_folder() else ""
    return f"there are no raw data of any {name} dataset.{hint}\n{forms}"

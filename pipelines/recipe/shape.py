"""What a recipe may say: declared here, checked by pydantic, and the source of the JSON Schema for editors.

The sentences are what an editor shows; docs/recipes.md tells the rest. Flags are checked by the jobs' own parsers
(flags.py), rules by the jobs' own tables (datasets.py).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

Flags = dict[str, JsonValue]  # a job's flags without their dashes: {decode: true, images: photos}
Stage = Literal[1, 2, 3]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Entry(_Shape):
    """What `catalog.yaml` says of a dataset."""

    language: str | None = None
    """en: English alone; zh: Chinese and English; or one that the catalog's `languages` add."""
    licence: str | None = None
    job: str | None = None
    """The script in pipelines/ that reads it."""
    reader: str | None = None
    """The published layout, as that job names it."""
    tasks: list[str] | None = None
    """What its samples become."""
    input: str | list[str] | None = None
    """Raw files: paths, globs or URLs; relative ones lie below a recipe's `raw`, or a catalog's `data`."""
    images: str | None = None
    """Folder or shards with the images, where they lie beside `input`."""
    pools: list[Literal["coco", "visual-genome", "flickr", "openimages", "vizwiz"]] | None = None
    """Whose images they are, where evaluation sets have some too."""
    output: str | None = None
    """Of a catalog: where the cleaned data go. A recipe has one output root."""
    columns: dict[str, str | None] | None = None
    """Our name -> the owner's column or key."""
    passthrough: list[str] | None = None
    """The owner's columns that no rule reads and every sample and ledger keeps: a photographer, an id."""
    rules: dict[str, JsonValue] | None = None
    """Rule -> its parameters, or off."""
    original: int | None = None
    """Rows before cleaning, from the paper's Table 2."""
    cleaned: int | None = None
    """Rows after cleaning, from the paper's Table 2."""
    stages: dict[Stage, dict[str, float]] | None = None
    """Stage -> task -> samples."""


class DatasetPart(Entry):
    """One dataset of a recipe: where its raw data lie, what is done to it, what differs from the catalog's entry."""

    like: str | None = None
    """The catalog's entry that a dataset of your own begins with; what is said here is laid over it."""
    do: list[str | dict[str, Flags | None]] | None = None
    """Steps in a row: fetch, clean, score, dedup, render, synthesise, each with flags of its job. Default: its job."""
    optional: bool = False
    """Left out where this machine lacks what it needs: a browser, FriBiDi."""


class StagePart(_Shape):
    """One stage: what is packed for it, and how it is trained."""

    mixture: dict[str, float | dict[str, float]] | None = None
    """Dataset -> samples, or task -> samples. Default: the catalog's numbers for the recipe's datasets."""
    build: Flags = Field(default_factory=dict)
    """Flags of build_stage.py, such as samples, of, max-tokens."""
    train: Flags | None = None
    """Flags of `python -m trainer`, such as steps, batch, peak-lr; with `ranks`, of pipelines/train.py. Absent: packed
    and not trained."""


class Model(_Shape):
    """The model that all stages share."""

    size: str | None = None
    """tiny, small, ...; see `python -m trainer --help`."""
    queries: int = Field(default=256, ge=1)
    """Tokens of an image."""
    tokenizer: str | None = None
    """A *.tiktoken file, a Hugging Face folder or name. Default: our own."""
    vision: str | None = None
    """Another tower: any plain ViT that open_clip knows by name."""
    vision_weights: str | None = Field(default=None, alias="vision-weights")
    """open_clip's tag, .safetensors or .pt."""
    language: str | None = None
    """A causal language model: a folder or a name."""
    init: str | None = None
    """A run, its export, or a folder of the released Qwen-VL, that the first stage begins with."""


def _empty(value):
    return {} if value is None else value


class Recipe(_Shape):
    """From raw data to a trained model: one output root, datasets, stages. See docs/recipes.md."""

    output: str = Field(min_length=1)
    """The one output root: a folder or an fsspec URL."""
    raw: str | dict[str, Flags | None] | None = None
    """The folder that the datasets' `input` and `images` lie below, or a job that makes one: {make_demo_crawl: {}}."""
    catalog: str | None = None
    """Default: the catalog.yaml of the checkout."""
    model: Model = Model()
    datasets: dict[str, Annotated[DatasetPart, BeforeValidator(_empty)]] = Field(min_length=1)
    """Catalog entries by name, and datasets of your own."""
    stages: dict[Stage, Annotated[StagePart, BeforeValidator(_empty)]] = Field(default_factory=dict)
    """1: pre-training, 2: multi-task, 3: dialogues."""

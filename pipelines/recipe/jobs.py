"""The commands of the checkout by name, in the groups in which `gristmill --help` lists them."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GROUPS = {
    "raw data": ("make_demo_crawl", "fetch_images"),
    "clean": ("clean_laion", "clean_captions", "clean_vqa", "clean_grounding", "clean_text", "clean_chat",
              "score_clip", "dedup", "retune"),
    "render and synthesise": ("render_pdf", "render_html", "make_ocr", "make_scenes"),
    "pack and hand on": ("build_stage", "show_packs", "export_data", "train_tokenizer"),
    "train and ask": ("trainer", "train", "generate", "evaluate", "export", "plot"),
    "plan": ("cost", "estimate"),
    "look and check": ("report", "explore", "compare", "paper_tables", "verify", "guard", "leaks", "doctor", "fonts"),
    "proofs": ("learn", "campaign", "train_tiny_clip"),
}  # fmt: skip
# `export` is the trainer's, of models; pipelines/export.py hands data on.
MODULES = {"trainer": "trainer", "fonts": "synth_ocr.fonts", "export_data": "pipelines.export"} | {
    name: f"trainer.{name}" for name in ("generate", "evaluate", "export", "estimate", "plot")
}
NAMES = [name for names in GROUPS.values() for name in names]


def file_of(name: str) -> Path:
    """Return the file that a command is."""
    path = ROOT / MODULES.get(name, f"pipelines.{name}").replace(".", "/")
    return path / "__main__.py" if path.is_dir() else path.with_suffix(".py")


def words_of(name: str) -> list[str]:
    """Return the words after `python` that run a command from anywhere."""
    return ["-P", "-m", MODULES[name]] if name in MODULES else [str(file_of(name))]


def listing() -> str:
    """Return all commands in their groups, each with the first line of its file's text."""
    lines = []
    for group, names in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<17}{_says(name)}" for name in names)]
    return "\n".join(lines)


def _says(name: str) -> str:
    return (ast.get_docstring(ast.parse(file_of(name).read_bytes())) or "").partition("\n")[0]

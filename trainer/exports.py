"""Exported models: a folder with weights, tokenizer, config.json and code, which needs no trainer state.

trainer.export writes one in another layout or precision.
"""

import shutil
from pathlib import Path

import torch

from corpus.damage import Damaged
from corpus.seals import SEAL, describe, read_sealed, sealed, wrong_files
from corpus.tokens import load_tokenizer
from trainer.checkpoint import flush, write_json
from trainer.convert import qwen_vl_config, qwen_vl_place, read_place, read_weights, to_qwen_vl
from trainer.hub.files import CONFIG_FIELDS, write_hub_files
from trainer.hub.released import unloadable, write_released_files
from trainer.model import VisionLanguageModel
from trainer.sizes import ModelConfig
from trainer.weights import Source, fill, materialise, state_source

CONFIG = "config.json"
MODEL_TYPE = "gristmill"
SHARD_BYTES = 4 << 30
RELEASED_IMAGE_SIZE = 448  # of Qwen-VL, whose config does not say it
_MEND = "copy the export again, or remove it and run the training's command with --resume auto, which writes it anew"


class WrongModel(ValueError):
    """A folder that holds no exported model, or another than was asked for."""


def write(folder: Path, config: ModelConfig, tensors: dict[str, torch.Tensor], tokenizer: str, history: dict) -> None:
    """Write an export atomically: the folder appears complete or not at all. `history` tells how it was trained."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    tokens = load_tokenizer(tokenizer)
    tokens.save(temporary)
    write_tensors(temporary, fold_image_rows(tensors, config))
    write_hub_files(temporary, config, tokens, image_size_of(history))
    record = {"model_type": MODEL_TYPE, "tokenizer_fingerprint": tokens.fingerprint, "history": history}
    record |= CONFIG_FIELDS
    _write_config(temporary, record | config.to_dict())
    flush(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def image_size_of(history: dict) -> int:
    """Return the pixels per side that an export's model was trained on, by what its config tells of its training."""
    return history.get("settings", {}).get("image_size", RELEASED_IMAGE_SIZE)


def _write_config(folder: Path, record: dict) -> None:
    """Write config.json beside the other files of an export: what it is, and what it consists of."""
    files = describe(folder, sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != CONFIG))
    write_json(folder / CONFIG, sealed(record | {"files": files}))


def fold_image_rows(tensors: dict[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Put rows trained beside a frozen embedding back into it."""
    if "image_rows" not in tensors:
        return tensors
    out = {name: tensor for name, tensor in tensors.items() if name != "image_rows"}
    name = next(n for n in out if n.startswith("language.") and "embed_tokens" in n)
    out[name] = out[name].to(tensors["image_rows"].dtype, copy=True)
    out[name][list(config.image_marks or ())] = tensors["image_rows"]
    return out


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor], limit: int = SHARD_BYTES) -> None:
    """Write safetensors files of at most about `limit` bytes, with an index where there are several."""
    from safetensors.torch import save_file

    groups: list[dict] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > limit:
            groups.append({})
            size = 0
        groups[-1][name] = tensor.clone() if _shared(tensor, groups[-1]) else tensor
        size += tensor.nbytes
    names = ["model.safetensors"] if len(groups) == 1 else [
        f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))
    ]  # fmt: skip
    for name, group in zip(names, groups, strict=True):
        save_file(group, folder / name, metadata={"format": "pt"})
    if len(groups) > 1:
        where = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
        total = sum(tensor.nbytes for tensor in tensors.values())
        write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def _shared(tensor: torch.Tensor, others: dict) -> bool:
    return any(tensor.data_ptr() == other.data_ptr() for other in others.values() if other.numel())


def read_config(folder: Path) -> tuple[ModelConfig, dict]:
    """An export's model configuration, and the rest of its config.json (tokenizer_fingerprint, history).

    A folder of the released Qwen-VL is read too. Raises WrongModel on any other.
    """
    path = Path(folder) / CONFIG
    try:
        record = read_sealed(path.read_bytes(), str(path), _MEND) if path.exists() else {}
    except Damaged as error:
        raise WrongModel(str(error)) from None
    if record.get("model_type") == "qwen" and "visual" in record:
        return qwen_vl_config(record), {"history": {"settings": {"image_size": record["visual"]["image_size"]}}}
    if record.get("model_type") != MODEL_TYPE:
        raise WrongModel(f"{folder} holds no exported model of this project (no {CONFIG} of type {MODEL_TYPE!r})")
    rest = {name: record.pop(name) for name in ("model_type", "tokenizer_fingerprint", "history")}
    rest["files"] = record.pop("files", {})
    for name in (SEAL, *CONFIG_FIELDS):
        record.pop(name, None)
    return ModelConfig.from_dict(record), rest


def refuse_damaged(folder: Path) -> None:
    """Raise WrongModel when files of an export are not as they were written (earlier exports do not tell)."""
    if wrong := list(wrong_files(folder, read_config(folder)[1].get("files", {}))):
        raise WrongModel(f"{'; '.join(wrong)}: {_MEND}")


def convert(folder: Path, to: Path, layout: str, dtype: str) -> str:
    """Write an export anew: `layout` ours or qwen-vl, `dtype` a name of torch's. Return what was done."""
    config, rest = read_config(folder)
    tensors = {n: t.to(getattr(torch, dtype)) for n, t in load_model(folder).state_dict().items()}
    to.mkdir(parents=True, exist_ok=True)
    write_tensors(to, to_qwen_vl(tensors) if layout == "qwen-vl" else tensors)
    if layout == "qwen-vl":
        write_released_files(to, config, load_tokenizer(folder), image_size_of(rest.get("history", {})), dtype)
        note = unloadable(config)
        return f"{len(tensors)} tensors of {config.size} written to {to}" + (f"\nNOTE: {note}" if note else "")
    for file in folder.iterdir():
        if file.is_file() and "safetensors" not in file.name and file.name != CONFIG:
            shutil.copyfile(file, to / file.name)
    record = read_sealed((folder / CONFIG).read_bytes(), str(folder / CONFIG), _MEND)
    _write_config(to, record)
    return f"{len(tensors)} tensors of {config.size} written to {to}"


def source(folder: Path) -> Source:
    """An export's tensors, or those of a folder in the released Qwen-VL's layout, read one at a time."""
    refuse_damaged(folder)
    tensors = read_weights(folder)
    if "transformer.visual.proj" not in tensors:
        return state_source(tensors)

    def read(name: str, shape: torch.Size) -> torch.Tensor | None:
        place = qwen_vl_place(name)
        return read_place(tensors, place) if place[0] in tensors else None

    return read


def load_model(folder: Path, device="cpu", dtype: torch.dtype = torch.float32) -> VisionLanguageModel:
    """Load an exported model for use, in evaluation mode."""
    config, _ = read_config(folder)
    with torch.device("meta"):
        model = VisionLanguageModel(config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    materialise(model, device)
    fill(model, [source(folder)])
    return model.eval().requires_grad_(False)

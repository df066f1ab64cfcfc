"""Is all that `model` names here, or to be had: tokenizer, weights to begin with, towers, language models?"""

import importlib.util
from pathlib import Path

from corpus.rules import hint, listed
from corpus.tokens import load_tokenizer
from pipelines.recipe.read import Reading
from trainer.hub.names import is_name
from trainer.sizes import TOWERS

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check(reading: Reading) -> None:
    """Note what of a recipe's `model` is neither here nor in the cache nor at the hub; what is to be downloaded too."""
    assert reading.recipe is not None
    model, hub = reading.recipe.model, _Hub()
    _check_tokenizer(reading, model.tokenizer, hub)
    for key in ("init", "language"):
        if name := getattr(model, key):
            _check_weights(reading, key, name, hub)
    if model.vision:
        _check_tower(reading, model.vision)
    weights = model.vision_weights or ""
    if weights.endswith((".safetensors", ".pt")) and not Path(weights).is_file():
        reading.wrong(("model", "vision-weights"), f"there is no {weights}")


def _check_tokenizer(reading: Reading, name: str | None, hub: "_Hub") -> None:
    if name is not None and not _is_local(name) and not _cached(name) and (why := hub.unreachable(name)):
        reading.wrong(("model", "tokenizer"), f"no tokenizer {name!r}: no file, no folder, not in the cache; {why}")
        return
    try:
        load_tokenizer(name)
    except ValueError as error:
        reading.wrong(("model", "tokenizer"), str(error))


def _is_local(tokenizer: str) -> bool:
    return "://" in tokenizer or tokenizer.endswith(".tiktoken") or Path(tokenizer).exists()


def _check_weights(reading: Reading, key: str, name: str, hub: "_Hub") -> None:
    """A folder must hold a model; a name must be in the cache with its weights, or at the hub."""
    folder = Path(name)
    if folder.exists() or not is_name(name):
        if not _holds_model(folder, run=key == "init"):
            lacks = " holds no model: no config.json" + ", nor export/config.json" * (key == "init")
            reading.wrong(("model", key), f"{name}{lacks}" if folder.exists() else f"there is no {name}")
    elif not _cached(name, *_WEIGHTS):
        if why := hub.unreachable(name) or hub.refused(name):
            reading.wrong(("model", key), f"no weights {name!r}: no folder, not in the cache; {why}")
        else:
            reading.notes.append(f"model.{key}: {name} is not here; it is downloaded when the training begins")


def _holds_model(folder: Path, run: bool) -> bool:
    return (folder / "config.json").is_file() or (run and (folder / "export" / "config.json").is_file())


def _cached(name: str, *patterns: str) -> bool:
    """Whether the hub's cache has a model's config, and a file of one of the patterns beside it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    folder = Path(found).parent if isinstance(found, str) else None
    return folder is not None and (not patterns or any(any(folder.glob(pattern)) for pattern in patterns))


def _check_tower(reading: Reading, name: str) -> None:
    """By the files of open_clip's package: to import it takes seconds."""
    package = importlib.util.find_spec("open_clip")
    places = package.submodule_search_locations if package else None
    known = [*TOWERS, *sorted(path.stem for place in places or () for path in Path(place).glob("model_configs/*.json"))]
    if name not in known:
        plain = [each for each in known if each in TOWERS or each.startswith("ViT-")]
        reading.wrong(("model", "vision"), f"no vision tower {name!r}{hint(name, known)}; known are {listed(plain)}")


class _Hub:
    """Hugging Face, asked with little patience, and not again once it did not answer: its library would try on."""

    def __init__(self):
        self._away, self._answers = "", dict[str, str]()

    def unreachable(self, name: str) -> str:
        """Say why the hub cannot be asked."""
        self._ask(name)
        return self._away

    def refused(self, name: str) -> str:
        """Say why the hub does not give a model that it was asked for."""
        return self._answers.get(name, "")

    def _ask(self, name: str) -> None:
        import huggingface_hub

        if self._away or name in self._answers:
            return
        try:
            huggingface_hub.HfApi().model_info(name, timeout=3)
            self._answers[name] = ""
        except huggingface_hub.errors.GatedRepoError:
            self._answers[name] = "the hub gives it only to who asked for it: log in with `hf auth login`"
        except huggingface_hub.errors.HfHubHTTPError:
            self._answers[name] = "the hub does not have it, or not for you"
        except Exception as error:  # of whichever transport the library has
            self._away = f"Hugging Face cannot be asked: {error}"

"""An export as transformers loads it, without this project: same tokens, same answers, our own code."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corpus.tokens import SPECIALS, load_tokenizer
from tests.test_generate import photo, run  # noqa: F401 - fixtures
from trainer.assistant import Assistant
from trainer.convert import qwen_vl_config, read_weights
from trainer.hub import files
from trainer.hub.names import found_model
from trainer.hub.released import released_config, unloadable
from trainer.prompts import ask
from trainer.sizes import SIZES, with_vocabulary

ROOT = Path(__file__).resolve().parent.parent
TEXTS = [
    "The 3 bees' nectar, 一只猫在沙发上。\n\tdef f(x): return x**2", " It's  WE'LL\r\n\r\n 1234 e\u0301 🐝\u200d ",
    "<img>P</img><|im_end|><box>(1,2)</box>", "", "ａｂ ﬁ ①  \u3000x",
]  # fmt: skip
ASK = """
import json, sys
from transformers import AutoModelForCausalLM, AutoProcessor
from PIL import Image
folder, picture, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
assert not {"trainer", "corpus"} & sys.modules.keys()
answers = []
for task, text, images in questions:
    inputs = processor(images=[Image.open(picture)] * images, text=text, task=task)
    answers += processor.answers(model.generate(**inputs, max_new_tokens=24), inputs)
print(json.dumps(answers))
"""
QUESTIONS = [("caption", "", 1), ("vqa", "What is it?", 1), ("referring", "the sign", 1), ("plain", "A red", 0),
             ("plain", "Which is larger? <box> Answer:", 2), ("chat", "What do you see?", 1),
             ("chat", "Hello", 0)]  # fmt: skip


def test_the_fast_tokenizer_cuts_every_text_as_ours_does(tmp_path):
    from transformers import AutoTokenizer

    own = load_tokenizer()
    own.save_fast(tmp_path)
    fast = AutoTokenizer.from_pretrained(tmp_path)
    assert {name: fast.convert_tokens_to_ids(name) for name in SPECIALS} == own.special
    rng = np.random.default_rng(0)
    drawn = ["".join(map(chr, rng.integers(32, 0x2FFF, 40))) for _ in range(50)]
    words = (ROOT / "README.md").read_text().split("\n")
    fast.backend_tokenizer.encode_special_tokens = True
    for text in [*TEXTS, *drawn, *words]:
        ids = own.encode(text)
        assert fast.backend_tokenizer.encode(text, add_special_tokens=False).ids == ids, text
        assert fast.decode(ids, clean_up_tokenization_spaces=False) == own.decode(ids)


def expected(run, photo):  # noqa: F811
    assistant = Assistant.load(run / "export")
    for task, text, images in QUESTIONS:
        if task == "chat":
            yield assistant.chat([*[{"image": photo}] * images, {"text": text}], max_tokens=24)[0].text
        else:
            yield assistant.generate([ask(task, [photo] * images, text)], max_tokens=24)[0].text


def answers_of(python, folder, photo, home) -> list[str]:  # noqa: F811
    (home / "photo.png").write_bytes(photo)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", ASK, str(folder), str(home / "photo.png"), json.dumps(QUESTIONS)]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_transformers_loads_an_export_and_answers_as_we_do(run, photo, tmp_path):  # noqa: F811
    told = list(expected(run, photo))
    assert len({*told}) > 2 and any("<box>" in answer for answer in told), told
    assert answers_of(sys.executable, run / "export", photo, tmp_path) == told


@pytest.mark.slow
def test_an_environment_without_this_project_answers_as_we_do(run, photo, tmp_path):  # noqa: F811
    uv = Path(sys.executable).with_name("uv")
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    names = ("torch==", "transformers==", "pillow==")
    needed = [line.split(" ;")[0] for line in lock if line.startswith(names)]
    for command in (["venv", "-q", "-p", sys.executable, tmp_path / "env"],
                    ["pip", "install", "-q", "-p", tmp_path / "env" / "bin" / "python", *needed]):  # fmt: skip
        done = subprocess.run([uv, *command], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no environment with {needed} can be made here: {done.stderr[-300:]}")
    told = list(expected(run, photo))
    assert answers_of(tmp_path / "env" / "bin" / "python", run / "export", photo, tmp_path) == told


def test_the_code_of_an_export_is_the_trainers_own_and_stands_alone(run):  # noqa: F811
    for source in files.SOURCES:
        code = (run / "export" / Path(source).name).read_text()
        assert code == files.standing_alone((ROOT / source).read_text())
        assert "from trainer" not in code and "from corpus" not in code and "import trainer" not in code


def test_pixels_of_any_mode_are_those_of_the_trainer():
    from trainer.batch import resize
    from trainer.hub.processing_gristmill import squash, to_rgb

    for mode, colour in (("RGBA", (9, 99, 200, 120)), ("L", 77), ("P", 3), ("LA", (3, 40)), ("I;16", 30_000)):
        image = Image.new(mode, (40, 30), colour)
        file = io.BytesIO()
        image.save(file, "PNG")
        assert np.array_equal(squash(to_rgb(Image.open(io.BytesIO(file.getvalue()))), 56), resize(file.getvalue(), 56))


# ---- other layouts, other places -------------------------------------------------------------------------------------


def test_the_released_config_is_that_of_the_released_model():
    tokens = {"image_token": 151859, "image_marks": (151857, 151858)}
    config = replace(SIZES["qwen-vl"].config, **tokens)
    told = released_config(config, 448, "bfloat16")
    assert (told["intermediate_size"], told["kv_channels"], told["seq_length"]) == (22016, 128, 2048)
    assert told["auto_map"]["AutoModelForCausalLM"] == "modeling_qwen.QWenLMHeadModel"
    assert told["visual"] == {
        "heads": 16, "image_size": 448, "image_start_id": 151857, "layers": 48, "mlp_ratio": 4.9231, "n_queries": 256,
        "output_dim": 4096, "patch_size": 14, "width": 1664,
    }  # fmt: skip
    assert qwen_vl_config(told) == config and unloadable(config) == ""
    tiny = replace(with_vocabulary(SIZES["tiny"].config, 500), **tokens)
    again = qwen_vl_config(released_config(tiny, 112, "float32"))
    assert replace(again, vision=tiny.vision) == tiny and again.language == tiny.language
    assert "16 queries" in unloadable(tiny)


def test_weights_may_be_pickled_tensors_and_nothing_else(tmp_path):
    state = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save({"a": state["a"]}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": state["b"]}, tmp_path / "pytorch_model-00002-of-00002.bin")
    found = read_weights(tmp_path)
    assert found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)
    torch.save({"c": Path("x")}, tmp_path / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(ValueError, match="00002-of-00002.bin is no file of tensors alone"):
        read_weights(tmp_path)


def test_init_takes_a_name_of_the_hub_and_none_of_its_code(tmp_path, monkeypatch):
    asked = {}

    def download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert found_model("Qwen/Qwen-VL") == tmp_path and not any(each.endswith(".py") for each in asked["Qwen/Qwen-VL"])
    assert found_model(str(tmp_path)) == tmp_path and found_model("runs") == Path("runs") and len(asked) == 1
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="the hub does not have it"):
        found_model("no/such")

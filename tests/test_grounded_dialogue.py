"""A dialogue with two pictures and boxes: from its owner's JSON to a trained tiny model's answer, its boxes drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from corpus.geometry import normalise_box
from corpus.packs import StageFolder
from pipelines import clean_chat
from tests import tiny_stage
from tests.by_heart import learn
from tests.published import put_json, run_job, samples
from trainer.assistant import Assistant
from trainer.draw import draw_regions
from trainer.prompts import dialogue

QUESTION = "Where is the first thing of Picture 2?"


def dialogues(folder) -> list[dict]:
    """Dialogues in LLaVA's layout over two drawn scenes each; the answer holds a box of the second, in its notation."""
    rows = []
    for number in range(2):
        scenes = [tiny_stage.sample("referring", 2 * number + which) for which in (0, 1)]
        for which, scene in enumerate(scenes):
            (folder / f"{number}-{which}.jpg").write_bytes(scene.images[0].data)
        region = scenes[1].annotations["regions"][0]
        x0, y0, x1, y1 = normalise_box(region["boxes"][0], 112, 112)
        said = f"It is <ref>{region['text']}</ref><box>({x0},{y0}),({x1},{y1})</box> there."
        talk = [{"from": "human", "value": f"<image>\n<image>\n{QUESTION}"}, {"from": "gpt", "value": said}]
        rows.append({"id": str(number), "images": [f"{number}-0.jpg", f"{number}-1.jpg"], "conversations": talk})
    return rows


@pytest.mark.slow
def test_two_pictures_and_a_box_from_json_to_a_drawn_answer(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    rows = dialogues(tmp_path / "images")
    put_json(tmp_path / "talk.json", rows)
    run_job(clean_chat, "--images", tmp_path / "images", "--input", tmp_path / "talk.json", "--notation", "qwen-vl",
            "--output", tmp_path / "clean")  # fmt: skip
    cleaned = sorted(samples(tmp_path / "clean").values(), key=lambda sample: sample.key)
    assert [len(each.images) for each in cleaned] == [2, 2]
    monkeypatch.setattr(tiny_stage, "sample", lambda task, number: cleaned[number])
    folder = tiny_stage.make_stage(tmp_path / "stage", tasks=("chat",), per_task=2, per_pack=2, shards=1)
    learn(StageFolder(folder), 1, tmp_path / "export")
    assistant = Assistant.load(tmp_path / "export")
    for each in cleaned:
        asked, pictures = each.annotations["turns"][:1], [image.data for image in each.images]
        (answer,) = assistant.generate([dialogue(asked, pictures, assistant.tokenizer)], max_tokens=60)
        (region,), (expected,) = answer.parsed.regions, each.annotations["turns"][1]["regions"]
        assert [tuple(box) for box in region.boxes] == [normalise_box(expected["boxes"][0], *expected["size"])]
        picture = Image.open(io.BytesIO(each.images[1].data)).convert("RGB")
        drawn = draw_regions(picture, answer.parsed)
        painted = np.abs(np.asarray(drawn, int) - np.asarray(picture, int)).max(axis=2) > 50
        x0, y0, x1, y1 = (round(v * side / 1000) for v, side in zip(region.boxes[0], picture.size * 2, strict=True))
        sides = painted[y0:y1, max(0, x0 - 2) : x0 + 3], painted[y0:y1, x1 - 3 : x1 + 3]
        assert all(side.any(axis=1).mean() > 0.8 for side in sides)
        drawn.resize((448, 448)).save(tmp_path / f"{each.key.rpartition('/')[2]}.png")

"""Each task's 32 samples can be learned by heart: masks, positions, targets and image slots fit together.

The answers cannot be guessed from the prompts, so a loss near zero means that the pictures are read too.
"""

from dataclasses import replace

import pytest
import torch

from corpus.packs import StageFolder
from corpus.records import TASKS
from tests.tiny_stage import make_stage
from trainer.data import PackBatches, Plan
from trainer.loop import Run, train_step
from trainer.parallel import World
from trainer.run import build_model
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import make_settings
from trainer.weights import fill, random_source


@pytest.mark.slow
@pytest.mark.parametrize(("task", "attention"), [*((task, "isolated") for task in TASKS), ("caption", "causal")])
def test_32_samples_are_learned_by_heart(task, attention, tmp_path):
    folder = StageFolder(make_stage(tmp_path / "stage", tasks=(task,), per_task=32, per_pack=4, shards=1))
    tokenizer = folder.tokenizer()
    config = with_vocabulary(SIZES["tiny"].config, tokenizer.vocab_size)
    config = replace(config, image_token=tokenizer.image_pad)
    settings = make_settings(2, "tiny", steps=400, warmup=10, peak_lr=2e-3, min_lr=1e-3, attention=attention)
    model = build_model(config, settings, World(torch.device("cpu")))
    fill(model, [random_source(config, 0)])
    run = Run(model, settings, World(torch.device("cpu")), Plan(8, 8))
    dataset = PackBatches(folder, seed=0, image_size=112, attention=attention, image_token=config.image_token)
    batch = dataset[tuple(range(8))]
    losses = []
    for step in range(settings.steps):
        losses.append(train_step(run, iter([batch]), step)["loss"])
        if losses[-1] < 0.05:
            break
    assert losses[0] > 3
    assert losses[-1] < 0.05, f"{losses[-1]:.3f} after {len(losses)} steps"

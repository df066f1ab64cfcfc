"""A tiny model that learns the packs of a tiny stage by heart."""

from dataclasses import replace

import torch

from corpus.packs import StageFolder
from trainer import checkpoint, exports
from trainer.data import PackBatches, Plan
from trainer.loop import Run, train_step
from trainer.parallel import World
from trainer.run import build_model
from trainer.sizes import SIZES, with_vocabulary
from trainer.stages import make_settings
from trainer.weights import fill, random_source


def learn(stage: StageFolder, packs: int, export, run=None) -> None:
    """Learn the first `packs` packs of a stage by heart; write the export and, to the folder `run`, a checkpoint."""
    tokenizer, world = stage.tokenizer(), World(torch.device("cpu"))
    config = replace(with_vocabulary(SIZES["tiny"].config, tokenizer.vocab_size), image_token=tokenizer.image_pad)
    config = replace(config, image_marks=(tokenizer.image_start, tokenizer.image_end))
    settings = make_settings(2, "tiny", steps=300, warmup=10, peak_lr=2e-3, min_lr=1e-3, attention="isolated")
    model = build_model(config, settings, world)
    fill(model, [random_source(config, 0)])
    learner = Run(model, settings, world, Plan(packs, packs))
    steps = _train(learner, stage)
    about = {"path": stage.path, "digest": stage.digest}
    record = {"settings": settings.to_dict(), "model": config.to_dict(), "corpus": about}
    exports.write(export, config, checkpoint.full_tensors(model, world), stage.tokenizer_path, record | {"stage": 2})
    if run:
        checkpoint.save(run, steps, model, learner.optimizer, checkpoint.json_form(record), 1, world)


def _train(learner: Run, stage: StageFolder) -> int:
    """Train until the loss of a step is near nothing; return the number of steps."""
    form = {"image_size": 112, "attention": "isolated", "image_token": learner.model.config.image_token}
    batch = PackBatches(stage, seed=0, **form)[tuple(range(learner.plan.packs_per_step))]
    for step in range(learner.settings.steps):
        if train_step(learner, iter([batch]), step)["loss"] < 0.01:
            break
    return step + 1

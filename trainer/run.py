"""One run of one stage, from a stage folder to an export: put together here, for the command line and for Ray alike."""

import signal
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from corpus.blocks import BlockCache, usual_folder
from corpus.damage import Damaged
from corpus.packs import StageFolder, WrongCorpus
from trainer import checkpoint, exports, lora, parallel
from trainer.convert import from_open_clip, open_clip_weights
from trainer.data import PackBatches, Plan, batches, micro_packs, packs_per_step, refuse_rot
from trainer.hub.names import found_model
from trainer.language import language_config, language_weights
from trainer.loop import Run, train_step
from trainer.model import VisionLanguageModel, count_parameters
from trainer.optim import learning_rate
from trainer.progress import Progress
from trainer.quantise import quantise_blocks
from trainer.saving import Saver
from trainer.sizes import SIZES, ModelConfig, with_vocabulary
from trainer.stages import SCHEDULE, Settings, freeze, make_settings
from trainer.towers import tower_config
from trainer.watch import Watch, open_watcher
from trainer.weights import Source, fill, materialise, random_source, state_source


@dataclass(frozen=True, kw_only=True)
class Job:
    """What was asked for. `flags` override the stage's defaults (see stages.Settings); None means not given.

    init: a run, its export, or a folder or hub name of the released Qwen-VL. vision, vision_weights: a tower's name,
    and a file or open_clip tag. language: a folder or hub name of a causal language model. resume: None, or "auto".
    reschedule: a resumed run may have another schedule. cache_dir, cache_gb: where blocks of packs are kept that come
    from an object store (None: corpus.blocks.usual_folder), and the most that they may take.
    """

    stage: int
    data: str
    output: Path
    size: str | None = None
    init: str | None = None
    vision: str | None = None
    vision_weights: str | None = None
    language: str | None = None
    queries: int | None = None
    resume: str | None = None
    reschedule: bool = False
    watch: Watch | None = None
    cache_dir: str | None = None
    cache_gb: float = 32.0
    device: str = "cpu"
    flags: dict = field(default_factory=dict)


def run_stage(job: Job) -> None:
    """Train one stage. Raises ValueError subclasses, with what to do, for input that does not fit together."""
    folder = StageFolder(job.data, _cache(job))
    tokenizer = folder.tokenizer()
    start = _start_folder(job)
    config = _choose_config(job, start, tokenizer, folder.queries)
    _check(folder, config, tokenizer, start)
    settings = _choose_settings(job, config)
    about = {"path": folder.path, "digest": folder.digest}
    record = checkpoint.json_form({"settings": settings.to_dict(), "model": config.to_dict(), "corpus": about})
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cuda.enable_cudnn_sdp(False)  # flash obeys the line above; of cuDNN's gradients nobody says so
    _refuse_to_overwrite(job)
    world = parallel.join_world(settings, job.device)
    try:
        found, first = _find_checkpoint(job, settings, record, world)
        model = build_model(config, settings, world)
        if found:
            checkpoint.load_frozen(found, model)
        else:
            fill(model, lora.sources(_sources(job, start, config, settings), settings.seed))
            checkpoint.save_frozen(job.output, model, world)
        quantise_blocks(model.language, settings.quantise)
        run = Run(model, settings, world, make_plan(folder, settings, world))
        if found:
            checkpoint.load(found, model, run.optimizer, world)
        parallel.optimise(model, settings)
        _train(job, run, folder, record, first)
    finally:
        parallel.leave_world(world)


def _cache(job: Job) -> BlockCache | None:
    return BlockCache(job.cache_dir or usual_folder(), int(job.cache_gb * 1e9)) if "://" in job.data else None


def _start_folder(job: Job) -> Path | None:
    """The export that `init` names: a run's, itself, or one of the hub."""
    if job.init is None:
        return None
    inside = Path(job.init) / "export"
    return inside if inside.is_dir() else found_model(job.init)


def _choose_config(job: Job, start: Path | None, tokenizer, queries: int) -> ModelConfig:
    if start is not None:
        config, _ = exports.read_config(start)
        if job.size not in (None, config.size):
            raise exports.WrongModel(f"{start} holds a model of size {config.size}, not {job.size}: leave --size out")
    else:
        config = with_vocabulary(_fresh_config(job, queries), tokenizer.vocab_size)
    ids = {"image_token": tokenizer.image_pad, "image_marks": (tokenizer.image_start, tokenizer.image_end)}
    if config.image_token not in (None, tokenizer.image_pad):
        raise WrongCorpus(f"{job.data} has <imgpad> as {tokenizer.image_pad}, the model as {config.image_token}")
    return replace(config, **ids)


def _fresh_config(job: Job, queries: int) -> ModelConfig:
    """The model of a run that begins from nothing; its adapter has the queries that the stage folder was built with."""
    config = SIZES[job.size or "tiny"].config
    if job.vision:
        config = replace(config, vision=tower_config(job.vision))
    if job.language:
        language = language_config(job.language)
        config = replace(config, language=language, adapter_heads=max(1, language["hidden_size"] // 128))
    return replace(config, queries=job.queries or queries)


def _check(folder: StageFolder, config: ModelConfig, tokenizer, start: Path | None) -> None:
    folder.require(queries=config.queries)
    made_with = exports.read_config(start)[1].get("tokenizer_fingerprint") if start else None
    if made_with not in (None, tokenizer.fingerprint):
        raise WrongCorpus(
            f"{folder.path} was made with another tokenizer (fingerprint {tokenizer.fingerprint}) than the model in "
            f"{start} ({made_with}): build the stage again with --tokenizer {start}"
        )
    rows = config.language["vocab_size"]
    if rows < tokenizer.vocab_size:
        raise WrongCorpus(f"{folder.path} has token ids up to {tokenizer.vocab_size - 1}, the model only {rows} rows")
    if config.language["max_position_embeddings"] < folder.max_tokens:
        raise WrongCorpus(
            f"{folder.path} has packs of up to {folder.max_tokens} tokens, the model takes "
            f"{config.language['max_position_embeddings']}"
        )


def _choose_settings(job: Job, config: ModelConfig) -> Settings:
    flags = {"precision": "fp32", "workers": 0} if job.device == "cpu" else {"precision": "bf16", "workers": 4}
    return make_settings(job.stage, config.size, **flags | job.flags, **_order_of(job))


def _order_of(job: Job) -> dict:
    """The order of packs that a run began with, which a resume keeps; nothing for one that begins now."""
    if job.resume:
        for found in sorted((job.output / "checkpoints").glob("step-*"), reverse=True):
            with suppress(Damaged):
                return {"order": checkpoint.read_state(found)["settings"].get("order", "packs")}
    return {}


def _refuse_to_overwrite(job: Job) -> None:
    if job.resume is None and (found := checkpoint.latest(job.output)):
        raise checkpoint.WrongCheckpoint(
            f"{job.output} holds a run already ({found.name}): give --resume auto to go on, or another --output"
        )


def _find_checkpoint(job: Job, settings: Settings, record: dict, world: parallel.World) -> tuple[Path | None, int]:
    """The checkpoint to go on from and the steps it has; (None, 0) for a new run."""
    found = checkpoint.newest_whole(job.output, world)
    if found is None:
        return None, 0
    state = checkpoint.read_state(found)
    may_change = SCHEDULE if job.reschedule else frozenset()
    checkpoint.require_same_run(found, state, settings, record["model"], record["corpus"], may_change)
    if job.reschedule and settings.steps <= state["step"]:
        raise checkpoint.WrongCheckpoint(f"{found} has {state['step']} steps already: --reschedule needs more --steps")
    if job.reschedule and world.rank == 0:
        print(new_schedule(state, settings), flush=True)
    return found, state["step"]


def new_schedule(state: dict, settings: Settings) -> str:
    """Say what a resumed run changes in the schedule of the run that wrote `state`."""
    before = replace(settings, **{name: state["settings"][name] for name in SCHEDULE})
    pairs = ((name, getattr(before, name), getattr(settings, name)) for name in sorted(SCHEDULE))
    changed = [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]
    step = state["step"]
    was = f", not {learning_rate(step, before):.3g}" if step < before.steps else ", where the run had ended"
    return (
        f"the schedule changes after step {step}: {'; '.join(changed) or 'not at all'}; the learning rate goes on at "
        f"{learning_rate(step, settings):.3g}{was}"
    )


def build_model(config: ModelConfig, settings: Settings, world: parallel.World) -> VisionLanguageModel:
    """A frozen, cut model with memory but without weights."""
    with torch.device("meta"):
        model = VisionLanguageModel(config, image_rows=settings.image_rows)
        lora.add(model, settings)
    freeze(model, settings)
    parallel.cast_frozen(model, settings)
    parallel.cut(model, settings, world)
    materialise(model, world.device)
    return model.train()


def _sources(job: Job, start: Path | None, config: ModelConfig, settings: Settings) -> list[Source]:
    random = random_source(config, settings.seed)
    if start is not None:
        return [exports.source(start), lambda name, shape: random(name, shape) if name == "image_rows" else None]
    sources = []
    if job.vision_weights:
        state = open_clip_weights(config.vision.name, job.vision_weights)
        sources.append(state_source(from_open_clip(state, config.vision.heads), "vision."))
    if job.language:
        sources.append(state_source(language_weights(job.language), "language."))
    return [*sources, random]


def make_plan(folder: StageFolder, settings: Settings, world: parallel.World) -> Plan:
    """Deal the batch out over ranks and micro-batches."""
    packs = packs_per_step(settings.batch, folder.mean_samples_per_pack)
    limit = settings.micro_packs or SIZES[settings.size].micro_packs
    accumulation = 1 if settings.micro_packs else settings.accumulation
    size = micro_packs(packs, world.dp_size, accumulation, limit)
    return Plan(packs, size, world.dp_rank, world.dp_size)


def _train(job: Job, run: Run, folder: StageFolder, record: dict, first: int) -> None:
    settings, world = run.settings, run.world
    dataset = PackBatches(
        folder,
        seed=settings.seed,
        image_size=settings.image_size,
        attention=settings.attention,
        image_token=run.model.config.image_token,
        order=settings.order,
        pad_to=folder.max_tokens * run.plan.micro_packs if settings.compile else 8,
    )
    stream = batches(dataset, run.plan, first, settings.steps, settings.workers, world.device.type == "cuda")
    rotten: dict[str, str] = {}
    with ExitStack() as stack:
        asked = stack.enter_context(_sigterm())
        saver = stack.enter_context(Saver(job.output, settings.keep, world))
        progress = stack.enter_context(Progress(job.output, first, settings.steps)) if world.rank == 0 else None
        watcher = open_watcher(run, job.watch, folder, settings.stage)
        if progress:
            progress.note(_announce(run, folder, first))
        for step in range(first, settings.steps):
            metrics = train_step(run, stream, step, stop=bool(asked))
            stop = metrics.pop("stop")
            refuse_rot(folder, rotten, metrics.get("replaced_packs", []))
            metrics |= watcher.look(step + 1) if watcher else {}
            if progress:
                progress.step(metrics)
                progress.show(step + 1, watcher.pictures if watcher and "scores" in metrics else ())
            last = step + 1 == settings.steps or stop
            if last or (step + 1) % settings.save_every == 0:
                saver.save(step + 1, run.model, run.optimizer, record)
            if stop and step + 1 < settings.steps:
                saver.wait()
                _say(progress, f"stopped at step {step + 1} on SIGTERM; go on with --resume auto")
                return
        saver.wait()
        _export(job, run, folder, record)
        folder.forget()
        _say(progress, f"exported to {job.output / 'export'}")


@contextmanager
def _sigterm():
    """A list that is no longer empty once SIGTERM has come. Only a main thread can listen (Ray Train's is none)."""
    asked: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(progress: Progress | None, text: str) -> None:
    if progress:
        progress.note(text)


def _announce(run: Run, folder: StageFolder, first: int) -> str:
    counts, s, plan = count_parameters(run.model), run.settings, run.plan
    parts = ", ".join(
        f"{name} {count / 1e6:,.2f}M{'' if name in s.trained_parts else ' (frozen)'}" for name, count in counts.items()
    )
    other = f"NOTE: {folder.path} was built for stage {folder.stage}\n" if folder.stage != s.stage else ""
    return (
        f"{other}stage {s.stage}, {s.size}: {parts}\n"
        f"{folder.num_packs:,} packs, {folder.num_samples:,} samples; a step takes {plan.packs_per_step} packs "
        f"(about {plan.packs_per_step * folder.mean_samples_per_pack:,.0f} samples) as {plan.ranks} ranks x "
        f"{plan.micro_batches} micro-batches x {plan.micro_packs} packs; images {s.image_size} px, attention "
        f"{s.attention}, {s.precision}; " + (f"resumed at step {first}" if first else f"{s.steps} steps")
    )


def _export(job: Job, run: Run, folder: StageFolder, record: dict) -> None:
    tensors = lora.merged(checkpoint.full_tensors(run.model, run.world), run.settings)
    if run.world.rank == 0:
        history = {"stage": run.settings.stage, "settings": record["settings"], "corpus": record["corpus"]}
        exports.write(job.output / "export", run.model.config, tensors, folder.tokenizer_path, history)
    run.world.barrier()

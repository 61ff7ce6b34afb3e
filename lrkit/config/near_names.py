"""Hints for a wrong name: the key or option of lrkit that the user of another library probably means. No Hydra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from lrkit.base.errors import did_you_mean, name_some
from lrkit.config.named_datasets import TORCHVISION

__all__ = ["known_key", "nearest_key", "suggest_key", "suggest_name", "suggest_option", "suggest_page"]

#: Names of the same keys of a schedule, warmup or data set in other libraries: each is a key of the same section.
_IN_SECTION = {
    "learning_rate": "lr",
    **dict.fromkeys(("eta_min", "min_lr", "alpha_f", "lr_end", "end_value"), "end"),
    **dict.fromkeys(("by_epoch", "t_in_epochs", "convert_to_iter_based"), "update_every"),
    **dict.fromkeys(("warmup_prefix", "interval_scaling"), "overlap"),
    **dict.fromkeys(("T_max", "total_steps", "total_iters", "decay_steps", "steps", "warmup_steps"), "length"),
    **dict.fromkeys(("step_size", "step_size_up"), "every"),
    **dict.fromkeys(("start_factor", "base_lr", "div_factor"), "start"),
    **dict.fromkeys(("beta1", "beta2", "adam_beta1", "adam_beta2", "b1", "b2"), "betas"),
    **dict.fromkeys(("epsilon", "adam_epsilon"), "eps"),
    **dict.fromkeys(("num_workers", "dataloader_num_workers"), "workers"),
    **dict.fromkeys(("hidden_size", "hidden_dim", "hidden_units", "hidden_sizes"), "hidden"),
    "T_0": "period", "T_mult": "growth", "max_lr": "peak", "pct_start": "up", "size": "batch_size",
    "wd": "weight_decay", "decay_rate": "gamma", "decay_epochs": "every",
}  # fmt: skip

_WARMUP = "warmup=linear warmup.length=..."
_STOP_EARLY = "callbacks=early_stopping callbacks.early_stopping.patience=..."
#: Names of keys in other libraries, in lower case with underscores -> the key or group of lrkit, or the words to type.
_ELSEWHERE = {
    **dict.fromkeys(("epochs", "epoch", "num_epochs", "n_epochs", "nb_epochs", "num_train_epochs", "train_epochs",
                     "max_epoch"), "trainer.max_epochs"),
    **dict.fromkeys(("steps", "total_steps", "num_training_steps", "train_steps", "num_steps", "n_steps", "max_iter",
                     "max_iters", "iterations", "iters"), "trainer.max_steps"),
    **dict.fromkeys(("learning_rate", "base_lr", "init_lr", "initial_lr", "lr0", "lr_base", "learningrate", "max_lr",
                     "initial_learning_rate", "peak_lr"), "optimizer.lr"),
    **dict.fromkeys(("batch_size", "batchsize", "bs", "batch", "train_batch_size", "micro_batch_size",
                     "per_device_train_batch_size", "per_device_batch_size"), "data.batch_size"),
    **dict.fromkeys(("global_batch_size", "effective_batch_size", "total_batch_size"), "batch.effective"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "sched", "lr_schedule", "lr_scheduler_type", "lr_policy",
                     "learning_rate_schedule"), "schedule"),
    **dict.fromkeys(("optim", "opt", "optimiser", "algorithm"), "optimizer"),
    **dict.fromkeys(("dataset", "datasets", "datamodule", "data_set"), "data"),
    **dict.fromkeys(("net", "network", "arch", "architecture", "backbone", "model_name", "module"), "model"),
    **dict.fromkeys(("loggers", "report_to", "log_with", "tracker"), "logger"),
    **dict.fromkeys(("callback",), "callbacks"),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "num_warmup_steps", "warmup_ratio", "warmup_iters", "warmup_t",
                     "warmup_length", "warm_up", "warmup_proportion", "warmup_factor"), _WARMUP),
    **dict.fromkeys(("cooldown_steps", "cooldown_epochs", "num_decay_steps"), "cooldown=linear cooldown.length=..."),
    **dict.fromkeys(("gpus", "gpu", "num_gpus", "n_gpu", "n_gpus", "ngpus", "num_devices", "nproc_per_node",
                     "world_size"), "trainer.devices"),
    **dict.fromkeys(("device", "cuda", "use_cuda", "no_cuda", "use_gpu"), "trainer.accelerator"),
    **dict.fromkeys(("nodes", "nnodes"), "trainer.num_nodes"),
    **dict.fromkeys(("ddp", "fsdp", "distributed"), "trainer.strategy"),
    **dict.fromkeys(("fp16", "amp", "half", "use_amp", "mixed_precision"), "trainer.precision=16-mixed"),
    **dict.fromkeys(("bf16", "bfloat16"), "trainer.precision=bf16-mixed"),
    **dict.fromkeys(("dtype",), "trainer.precision"),
    **dict.fromkeys(("grad_clip", "clip_grad", "max_grad_norm", "clip_grad_norm", "clipnorm", "clip_norm", "clipvalue",
                     "gradient_clip", "gradient_clipping", "grad_norm_clip"), "trainer.gradient_clip_val"),
    **dict.fromkeys(("accumulate", "grad_accum", "grad_accum_steps", "gradient_accumulation_steps",
                     "accumulation_steps", "gradient_accumulation", "accum_iter", "accumulate_grad"),
                    "trainer.accumulate_grad_batches"),
    **dict.fromkeys(("val_interval", "eval_steps", "val_every", "eval_every", "eval_interval", "val_check"),
                    "trainer.val_check_interval"),
    **dict.fromkeys(("log_every", "logging_steps", "log_interval", "print_freq", "log_steps"),
                    "trainer.log_every_n_steps"),
    **dict.fromkeys(("save_steps", "save_every", "save_freq", "save_interval", "checkpoint_every", "save_total_limit",
                     "every_n_epochs", "every_n_train_steps", "save_top_k"), "callbacks=checkpoint_every"),
    **dict.fromkeys(("early_stopping", "early_stop", "earlystopping"), "callbacks=early_stopping"),
    "patience": f"{_STOP_EARLY} or plateau=reduce plateau.patience=...",
    **dict.fromkeys(("ema", "model_ema", "use_ema", "ema_decay"), "callbacks=ema"),
    **dict.fromkeys(("swa", "use_swa"), "callbacks=swa"),
    **dict.fromkeys(("wandb", "use_wandb", "wandb_project"), "logger=wandb"),
    **dict.fromkeys(("mlflow", "use_mlflow"), "logger=mlflow"),
    **dict.fromkeys(("tensorboard", "use_tensorboard"), "logger=tensorboard"),
    **dict.fromkeys(("checkpoint", "ckpt", "ckpt_path", "resume_from_checkpoint", "resume_from", "load_from",
                     "resume_path", "checkpoint_path"), "resume.path"),
    **dict.fromkeys(("output_dir", "out_dir", "save_dir", "log_dir", "logdir", "work_dir", "default_root_dir",
                     "run_dir", "result_dir", "results_dir", "output", "save_path", "exp_dir", "name", "run_name",
                     "exp_name", "experiment_name"), "hydra.run.dir"),
    **dict.fromkeys(("random_seed", "random_state", "manual_seed", "seed_everything"), "seed"),
    **dict.fromkeys(("metric_for_best_model", "metric", "metrics", "eval_metric"), "monitor"),
    **dict.fromkeys(("eta_min", "min_lr", "end_lr", "final_lr", "alpha", "lr_end"), "schedule.end"),
    **dict.fromkeys(("t_max", "decay_steps"), "schedule.length"),
    **dict.fromkeys(("step_size", "decay_epochs", "step_lr"), "schedule.every"),
    **dict.fromkeys(("gamma", "decay_rate", "lr_gamma", "lr_decay"), "schedule.gamma"),
    **dict.fromkeys(("lr_steps", "lr_milestones", "boundaries"), "schedule.milestones"),
    "t_0": "schedule.period", "t_mult": "schedule.growth", "pct_start": "schedule.up",
    **dict.fromkeys(("wd", "l2", "l2_reg", "decay", "decoupled_weight_decay"), "optimizer.weight_decay"),
    **dict.fromkeys(("beta1", "beta2", "adam_beta1", "adam_beta2", "opt_betas", "b1", "b2"), "optimizer.betas"),
    **dict.fromkeys(("epsilon", "adam_epsilon", "opt_eps"), "optimizer.eps"),
    **dict.fromkeys(("llrd", "layer_decay", "layerwise_lr_decay", "lr_layer_decay"), "param_groups=layerwise"),
    **dict.fromkeys(("no_weight_decay", "no_decay", "no_bias_decay", "filter_bias_and_bn"), "param_groups=no_decay"),
    **dict.fromkeys(("num_workers", "workers", "dataloader_num_workers"), "data.workers"),
    **dict.fromkeys(("validation_split", "val_split", "valid_size", "val_size"), "data.val_fraction"),
    **dict.fromkeys(("data_dir", "data_path", "dataset_path", "data_root", "train_file"), "data.path"),
    **dict.fromkeys(("loss", "loss_fn", "criterion", "label_smoothing"),
                    "a LightningModule with this loss: model=custom model._target_=mycode.Module"),
    **dict.fromkeys(("hidden_size", "hidden_dim", "hidden_units", "hidden_sizes"), "model.hidden"),
    **dict.fromkeys(("num_layers", "n_layers", "n_layer", "depth"), "model.layers"),
    **dict.fromkeys(("num_heads", "n_head", "n_heads"), "model.heads"),
    **dict.fromkeys(("d_model", "embed_dim", "n_embd"), "model.width"),
    **dict.fromkeys(("sweep_jobs", "n_jobs", "num_jobs", "parallel"), "jobs"),
    **dict.fromkeys(("linear_scaling", "scale_lr", "auto_scale_lr", "lr_scaling"), "batch_scaling=linear"),
    **dict.fromkeys(("debug", "dry_run", "smoke_test"), "trainer.fast_dev_run=true"),
    **dict.fromkeys(("gpu_ids", "device_ids"), "trainer.devices=[...]"),
}  # fmt: skip

_CUSTOM_OPTIMIZER = "optimizer=custom optimizer._target_=torch.optim."
#: Group -> names of its options in other libraries, only lower-case letters and digits -> option, or words to type.
_OPTIONS: dict[str, dict[str, str]] = {
    "schedule": {
        **dict.fromkeys(("cosineannealing", "cosineannealinglr", "cosinedecay", "cosinelr", "cos", "cosinelrscheduler",
                         "halfcosine"), "cosine"),
        **dict.fromkeys(("cosinewarmup", "warmupcosine", "cosinewithwarmup", "linearwarmupcosineannealing",
                         "linearwarmupcosineannealinglr", "warmupcosinelr", "linearwarmupcosine"),
                        "warmup=linear schedule=cosine"),
        **dict.fromkeys(("linearwarmup", "linearwithwarmup", "warmuplinear", "warmupdecaylr"),
                        "warmup=linear schedule=linear"),
        **dict.fromkeys(("constantwithwarmup", "warmup", "warmuplr", "warmupconstant"),
                        "warmup=linear schedule=constant"),
        **dict.fromkeys(("cosineannealingwarmrestarts", "cosinewithrestarts", "cosinewithhardrestarts", "sgdr",
                         "cosinedecayrestarts", "warmrestarts", "cosinerestarts"), "restarts"),
        **dict.fromkeys(("onecycle", "onecyclelr", "1cycle", "onecyclepolicy"), "one_cycle"),
        **dict.fromkeys(("steplr", "steps", "stepdecay"), "step"),
        **dict.fromkeys(("multisteplr", "multisteps", "piecewiseconstant", "piecewiseconstantdecay"), "multistep"),
        **dict.fromkeys(("exponentiallr", "exponentialdecay", "exp"), "exponential"),
        **dict.fromkeys(("poly", "polylr", "polynomiallr", "polynomialdecay"), "polynomial"),
        **dict.fromkeys(("reducelronplateau", "reduceonplateau", "reduceplateau"), "plateau"),
        **dict.fromkeys(("lambdalr", "lambda", "multiplicativelr", "function", "expression"), "formula"),
        **dict.fromkeys(("none", "null", "off", "fixed", "flat", "const", "constantlr", "false", "no"), "constant"),
        **dict.fromkeys(("linearlr", "lineardecay"), "linear"),
        **dict.fromkeys(("cycliclr", "clr", "triangular", "triangular2"), "cyclic"),
        **dict.fromkeys(("noam", "invsqrt", "rsqrt", "transformer", "inversesquareroot"), "inverse_sqrt"),
        **dict.fromkeys(("inversetimedecay", "invtime"), "inverse_time"),
        **dict.fromkeys(("warmupstabledecay", "trapezoidal", "trapezoid"), "wsd"),
        **dict.fromkeys(("sequentiallr", "sequential", "piecewiselinear"), "piecewise"),
        **dict.fromkeys(("chained", "chainedscheduler", "chainedlr"), "product"),
        **dict.fromkeys(("csv", "list", "lookup"), "table"),
    },
    "warmup": {
        **dict.fromkeys(("true", "on", "yes", "gradual", "linearwarmup", "linearlr"), "linear"),
        **dict.fromkeys(("false", "off", "no", "null"), "none"),
    },
    "cooldown": {
        **dict.fromkeys(("true", "on", "yes"), "linear"), **dict.fromkeys(("false", "off", "no", "null"), "none"),
    },
    "plateau": {
        **dict.fromkeys(("true", "on", "yes", "reducelronplateau", "reduceonplateau", "default"), "reduce"),
        **dict.fromkeys(("false", "off", "no", "null"), "none"),
    },
    "guard": {
        **dict.fromkeys(("false", "none", "no", "null"), "off"), **dict.fromkeys(("true", "on", "yes"), "stop"),
        **dict.fromkeys(("restore", "rollback"), "reduce"),
    },
    "batch_scaling": {
        **dict.fromkeys(("true", "on", "goyal", "yes"), "linear"), **dict.fromkeys(("squareroot", "root"), "sqrt"),
        **dict.fromkeys(("false", "off", "no", "null"), "none"),
    },
    "param_groups": {
        **dict.fromkeys(("llrd", "layerdecay", "layerwisedecay"), "layerwise"),
        **dict.fromkeys(("nobiasdecay", "noweightdecay"), "no_decay"), **dict.fromkeys(("none", "off"), "default"),
    },
    "optimizer": {
        **dict.fromkeys(("sgdm", "sgdmomentum", "momentumsgd", "heavyball"), "momentum"),
        **dict.fromkeys(("nesterov", "sgdnesterov", "nag"), "optimizer=momentum optimizer.nesterov=true"),
        **dict.fromkeys(("adamw8bit", "adamwtorch", "adamwtorchfused", "adamwhf", "fusedadamw"), "adamw"),
        **dict.fromkeys(("fusedadam", "adam8bit"), "adam"),
        "rms": "rmsprop", "lookahead": "ranger", "schedulefree": "schedule_free_adamw",
        **dict.fromkeys(("adamwschedulefree", "schedulefreeadam"), "schedule_free_adamw"),
        "sgdschedulefree": "schedule_free_sgd",
        **{name.lower(): f"{_CUSTOM_OPTIMIZER}{name}"
           for name in ("Adadelta", "Adamax", "ASGD", "Rprop", "LBFGS", "SparseAdam")},
    },
    "data": {
        **{name.lower(): f"data=torchvision data.name={name}" for name in TORCHVISION},
        "imagenet": "data=torchvision data.name=ImageFolder data.root=...",
        **dict.fromkeys(("npz", "csv", "numpy", "array", "tabular", "pandas"), "arrays"),
        **dict.fromkeys(("hf", "huggingfacedatasets", "loaddataset"), "huggingface"),
        **dict.fromkeys(("tinyshakespeare", "shakespeare", "chars", "textfile"), "text"),
        **dict.fromkeys(("dataset", "torch"), "datasets"),
    },
    "model": {
        **dict.fromkeys(("transformer", "gpt", "gpt2", "nanogpt"), "char_transformer"),
        **dict.fromkeys(("logistic", "logisticregression", "linearregression", "softmax"), "linear"),
        **dict.fromkeys(("fc", "dense", "ffn", "dnn"), "mlp"), **dict.fromkeys(("cnn", "convnet", "conv"), "cnn2d"),
    },
    "logger": {
        **dict.fromkeys(("wb", "weightsandbiases", "weightsbiases"), "wandb"),
        **dict.fromkeys(("tb", "tensorboardlogger", "true", "default"), "tensorboard"), "csvlogger": "csv",
        **dict.fromkeys(("false", "off", "no", "null"), "none"),
    },
    "callbacks": {
        **dict.fromkeys(("earlystop", "earlystopping"), "early_stopping"),
        **dict.fromkeys(("modelcheckpoint", "checkpoint", "checkpoints"), "checkpoint_every"),
        **dict.fromkeys(("stochasticweightaveraging", "weightaveraging"), "swa"),
        **dict.fromkeys(("modelema", "exponentialmovingaverage"), "ema"),
        **dict.fromkeys(("none", "off", "false", "null"), "default"),
    },
    "trainer": {
        **{name: f"trainer.accelerator={name}" for name in ("cpu", "gpu", "cuda", "mps", "tpu")},
        **{name: f"trainer.strategy={name}" for name in ("ddp", "fsdp", "deepspeed")},
    },
}  # fmt: skip
#: Networks that are in a library, by the beginning of their names.
_TORCHVISION_MODEL = re.compile(
    r"(resnet|resnext|vgg|vit_|densenet|efficientnet|mobilenet|convnext|swin|alexnet)\w*", re.I
)
_LENGTH = re.compile(r"[\d.]+(e\d+)?(%|ep|sp|tok)?")


def suggest_name(name: str, choices: Collection[str]) -> str:
    """Return a hint for an unknown name: the choice with this name in other libraries, or the most similar choice.

    >>> suggest_name("T_max", ["start", "end", "length"])
    "Did you mean 'length'? Accepted: end, length, start"
    """
    alias = _IN_SECTION.get(name, name)
    if alias == "end" and alias not in choices:  # a schedule without an end value has a floor
        alias = "floor"
    return did_you_mean(alias if alias in choices else name, choices)


def known_key(name: str) -> str:
    """The key, group or words for a name of another library; empty for any other name.

    >>> known_key("num-train-epochs")
    'trainer.max_epochs'
    """
    return _ELSEWHERE.get(name.lower().replace("-", "_"), "")


def suggest_key(name: str) -> str:
    """A hint for the name of a key, an option or a flag in another library; empty for a name that lrkit does not know.

    >>> suggest_key("epochs"), suggest_key("fp16"), suggest_key("nope")
    ("Did you mean 'trainer.max_epochs'?", 'Write trainer.precision=16-mixed', '')
    """
    words = known_key(name)
    if not words:
        return ""
    return f"Write {words}" if "=" in words else f"Did you mean {words!r}?"


def suggest_option(group: str, name: str, choices: Collection[str]) -> str:
    """A hint for an option that a group does not have: the option's name here, words to type, or the nearest option.

    >>> suggest_option("schedule", "OneCycleLR", ["cosine", "one_cycle"])
    "Did you mean 'one_cycle'? Accepted: cosine, one_cycle"
    >>> suggest_option("warmup", "500", ["linear", "none"])
    'Write warmup=linear warmup.length=500. Accepted: linear, none'
    """
    words = _OPTIONS.get(group, {}).get(re.sub(r"[^a-z0-9]", "", name.lower()), "")
    if group in ("warmup", "cooldown") and _LENGTH.fullmatch(name):
        words = f"{group}=linear {group}.length={name}"
    elif group == "model" and _TORCHVISION_MODEL.fullmatch(name):
        words = f"model=custom model._target_=torchvision.models.{name.lower()}"
    elif not words and "custom" in choices and re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name):
        words = f"{group}=custom {group}._target_={name}"
    if "=" in words:
        return f"Write {words}. {did_you_mean('', choices)}"
    return did_you_mean(words if words in choices else name, choices)


def nearest_key(key: str, keys: Sequence[str], others: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a hint for an unknown key: a key of its section, its name here, one that ends alike, or the most similar.

    Args:
        key: the unknown key.
        keys: the dotted paths that there are.
        others: keys of options that are not chosen, and these options.

    >>> nearest_key("optimizer.lrr", ["optimizer.lr", "schedule.gamma"])
    "Did you mean 'lr'? Accepted: lr"
    >>> nearest_key("lr", ["optimizer.lr", "schedule.gamma"])
    "Did you mean 'optimizer.lr'?"
    >>> nearest_key("epochs", ["optimizer.lr", "trainer.max_epochs"])
    "Did you mean 'trainer.max_epochs'?"
    """
    section, _, name = key.rpartition(".")
    others = others or {}
    inside = [k.rpartition(".")[2] for k in keys if section and k.rpartition(".")[0] == section]
    inside = [each for each in inside if not each.startswith("_")]
    known = known_key(name)
    if inside:
        if known.rpartition(".")[0] == section and known in keys:  # trainer.epochs
            return suggest_name(known.rpartition(".")[2], inside)
        hint = suggest_name(name, inside)
        elsewhere = "" if known == key else _name_known(known, keys, others)
        return hint if hint.startswith("Did") else elsewhere or hint
    if hint := _name_known(known, keys, others):
        return hint
    alike = [k for called in (name, _IN_SECTION.get(name)) for k in keys if k.rpartition(".")[2] == called]
    if alike:
        return f"Did you mean {alike[0]!r}?"
    if unchosen := [k for k in others if k.rpartition(".")[2] == name]:
        return f"Did you mean {unchosen[0]!r}, a key of {_name_options(unchosen[0], others[unchosen[0]])}?"
    hint, near, _ = did_you_mean(key, keys).partition("? ")
    return f"{hint}?" if near else did_you_mean(key, {k.partition(".")[0] for k in keys})


def _name_known(known: str, keys: Sequence[str], others: Mapping[str, Sequence[str]]) -> str:
    """The hint for a key or words of another library's name; empty for a key that no option has."""
    if "=" in known:
        return f"Write {known}"
    if known in keys or known.startswith("hydra.") or (known and "." not in known):
        return f"Did you mean {known!r}?"
    return f"Did you mean {known!r}, a key of {_name_options(known, others[known])}?" if known in others else ""


def _name_options(key: str, options: Sequence[str]) -> str:
    return f"{key.partition('.')[0]}={name_some(options)}"


def suggest_page(name: str, names: Sequence[str]) -> str:
    """A hint for a name that nothing has: the same name below a group, its name here, or the most similar ones.

    >>> suggest_page("lr", ["optimizer.lr", "find.start"]), suggest_page("cosin", ["schedule.cosine", "seed"])
    ("Did you mean 'optimizer.lr'?", "Did you mean 'schedule.cosine'?")
    """
    alike = [each for each in names if each.rpartition(".")[2] == name]
    if alike:
        return f"Did you mean {_name_either(alike)}?"
    if hint := suggest_key(name.rpartition(".")[2]):
        return hint
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.8)
    ends = difflib.get_close_matches(name, [each.rpartition(".")[2] for each in names], n=1, cutoff=0.8)
    near += [each for each in names if ends and each.rpartition(".")[2] == ends[0] and each not in near]
    return f"Did you mean {_name_either(near)}?" if near else ""


def _name_either(names: Sequence[str], most: int = 4) -> str:
    quoted = [repr(name) for name in names[:most]]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"

"""Messages about bad input. A row has one mistake: the command line, and lrkit's answer in one line.

An ellipsis in the answer stands for any text, such as a list of options, which changes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from locations import ROOT

from lrkit.cli.main import main
from lrkit.data.in_memory import InMemoryData
from lrkit.lightning.imports import Trainer
from lrkit.lightning.supervised import Supervised

# Refused from the config alone: nothing is read, nothing is written, torch is not needed.
FROM_THE_CONFIG = [
    # --- the base rate
    ("train optimizer.lr=-0.01", "optimizer.lr must be a finite number > 0. Received: -0.01"),
    ("train optimizer.lr=0", "optimizer.lr must be > 0: with 0 nothing would train. Received: 0"),
    ("train optimizer.lr=nan", "optimizer.lr must be a finite number > 0. Received: nan"),
    ("train optimizer.lr=null", "optimizer.lr must be set to a positive number. Received: None"),
    ("train optimizer.lr=true", "optimizer.lr must be a number. Received: True"),
    ("train optimizer.lr=1e-3x", "optimizer.lr must be a number. Received: '1e-3x'"),
    ("""train optimizer.lr='"1e-3"'""", "optimizer.lr must be a number; drop the quotes. Received: '1e-3'"),
    (
        "train optimizer.lr=[0.1,0.2]",
        "optimizer.lr takes one number, not a list; to sweep: -m optimizer.lr=0.1,0.2. Received: [0.1, 0.2]",
    ),
    (
        "train optimizer.lr=1e6",
        "optimizer.lr must be in [1e-08, 10]; to allow it: allow_extreme_lr=true. Received: 1000000.0",
    ),
    (
        "show optimizer.lr=1 batch_scaling=linear batch_scaling.base_batch_size=1",
        "optimizer.lr must be in [1e-08, 10] after batch-size scaling; to allow it: allow_extreme_lr=true."
        " Received: 'lr 32 = 1 x 32 (linear: batch 32 / base 1)'",
    ),
    ("train allow_extreme_lr=3", "allow_extreme_lr must be true or false. Received: 3"),
    # --- keys that do not exist, plain and through a plus
    ("train lr=0.1", "lr is not a key. Did you mean 'optimizer.lr'?"),
    ("train +lr=0.1", "lr is not a key. Did you mean 'optimizer.lr'?"),
    ("train optimizer.lrr=0.1", "optimizer.lrr is not a key. Did you mean 'lr'? …"),
    ("train optimizer.learning_rate=0.1", "optimizer.learning_rate is not a key. Did you mean 'lr'? …"),
    ("train optimzer.lr=0.1", "optimzer.lr is not a key. Did you mean 'optimizer.lr'?"),
    ("train interval=epoch", "interval is not a key. Accepted: …"),
    (
        "train schedule.interval=epoch",
        "schedule.interval is not a key. Accepted: end, floor, k, length, power, scale, skip, start, update_every.",
    ),
    ("train schedule.eta_min=0.1", "schedule.eta_min is not a key. Did you mean 'end'? …"),
    ("train schedule.T_max=24", "schedule.T_max is not a key. Did you mean 'length'? …"),
    ("train schedule=step schedule.step_size=5", "schedule.step_size is not a key. Did you mean 'every'? …"),
    ("train warmup=linear warmup.steps=10", "warmup.steps is not a key. Did you mean 'length'? …"),
    ("train trainer.max_stepz=5", "trainer.max_stepz is not a key. Did you mean 'max_steps'? …"),
    ("train +trainer.max_stepz=5", "trainer.max_stepz is not a key. Did you mean 'max_steps'? …"),
    ("show +horizon.stepz=5", "horizon.stepz is not a key. Did you mean 'steps'? …"),
    ("show batch.size=5", "batch.size is not a key. Accepted: by, effective, schedule."),
    ("show batch_scaling.base=0", "batch_scaling.base is not a key. Accepted: base_batch_size, rule."),
    ("show +param_groups.foo=2", "param_groups.foo is not a key. …"),
    ("show +foo.bar=1", "foo is not a key. Accepted: …"),
    ("train ~foo", "foo is not a key. Accepted: …"),
    ("train data.n=0", "data.n is not a key. …"),
    ("train ckpt_path=x", "ckpt_path is not a key. …"),
    ("train callbacks.x=5", "callbacks.x does not exist; to add it write +callbacks.x=..."),
    (
        "train warmup.length=10",
        "warmup.length is not a key of warmup=none; other options of warmup: constant, cosine, exponential, formula, "
        "linear, logarithmic.",
    ),
    ("train +warmup.length=10", "warmup.length is not a key of warmup=none; other options of warmup: …"),
    # --- groups and their options
    ("train optimizer=adamww", "optimizer has no option 'adamww'. Did you mean 'adamw'? …"),
    ("train schedule=Cosine", "schedule has no option 'Cosine'. Did you mean 'cosine'? …"),
    ("train optimizer={lr:3}", "optimizer has no option \"{'lr': 3}\". Accepted: …"),
    ("train experiment=demo", "experiment must be added: write +experiment=demo."),
    ("train +schedule=cosine", "schedule is chosen already: write schedule=cosine, without the +."),
    ("train ~schedule", "schedule cannot be removed: use schedule=constant."),
    ("train schedule=null", "schedule cannot be null: use schedule=constant."),
    ("train ~optimizer", "optimizer cannot be removed: use optimizer=momentum."),
    ("train ~seed", "seed cannot be removed."),
    (
        "train optimizer=[adamw,sgd]",
        "optimizer takes one option; to sweep: -m optimizer=adamw,sgd. Received: ['adamw', 'sgd']",
    ),
    # --- the grammar of overrides
    ("train optimizer.lr", "optimizer.lr has no value: write optimizer.lr=..."),
    ("train optimizer.lr=", "optimizer.lr has no value: write optimizer.lr=..."),
    (
        "train 'optimizer.lr = 0.1'",
        "optimizer.lr must be written without spaces: optimizer.lr=0.1. Received: 'optimizer.lr = 0.1'",
    ),
    ("train =5", "an override must be key=value. Received: '=5'"),
    ("train ''", "an override must be key=value. Received: ''"),
    (
        "train resume.path=Läufe",
        "resume.path cannot be read: write \"resume.path='Läufe'\", with both kinds of quotes…",
    ),
    ("train optimizer.lr=[1", "optimizer.lr cannot be read: put quotes around a value with special characters…"),
    (
        "train schedule.length=24 schedule.length=48",
        "schedule.length is given twice: schedule.length=24 and schedule.length=48.",
    ),
    ("train optimizer=adamw,sgd", "optimizer takes one value; to sweep: lrkit train -m optimizer=adamw,sgd."),
    ("train optimizer.lr=0.1,0.2", "optimizer.lr takes one value; to sweep: lrkit train -m optimizer.lr=0.1,0.2."),
    (
        "train warmup=linear +warmup.start=0.1",
        "warmup.start already exists: drop the +.",
    ),
    ("train optimizer.lr='${nope}'", "optimizer.lr cannot be resolved: Interpolation key 'nope' not found."),
    ("train data=custom", "data._target_ must be set."),
    # --- sweeps
    ("train -m schedule=cosine,cosin", "schedule has no option 'cosin'. Did you mean 'cosine'? …"),
    ("train -m optimizer.lr=0.1,-1", "optimizer.lr must be a finite number > 0. Received: -1"),
    ("train -m schedule=cosine,step schedule.every=5", "schedule.every is not a key. …"),
    (
        "train -m optimizer.lr=range(0,1000000) seed=range(0,1000000)",
        "-m must have at most 1000 jobs: this sweep has more.",
    ),
    ("train -m seed=range(0,1001)", "-m must have at most 1000 jobs: this sweep has more."),
    ("train -m seed=shuffle(range(0,100000000000))", "-m must have at most 1000 jobs: this sweep has more."),
    (
        "train -m optimizer.lr=interval(0,1)",
        "optimizer.lr must sweep over a list of values, or a range of them: range(0,10,2). Received: 'interval(0,1)'",
    ),
    # --- schedules
    ("train schedule=step schedule.every=0", "schedule.every must be longer than 0. Received: 0"),
    ("train schedule=step schedule.every=-5", "schedule.every must not be negative. Received: -5"),
    ("train schedule=step schedule.gamma=0", "schedule.gamma must be > 0. Received: 0"),
    ("train schedule=step schedule.gamma=-0.1", "schedule.gamma must be > 0. Received: -0.1"),
    (
        "train schedule=step schedule.gamma=10 schedule.every=1",
        "schedule has values that cannot be computed: (34, 'Numerical result out of range').",
    ),
    ("train schedule.scale=0", "schedule.scale must be > 0. Received: 0"),
    ("train schedule.floor=-1", "schedule.floor must be >= 0. Received: -1"),
    ("train schedule.update_every=0", "schedule.update_every must be longer than 0. Received: 0"),
    ("train schedule.skip=-1", "schedule.skip must not be negative. Received: -1"),
    (
        "train +schedule.overlap=join",
        "schedule.overlap is an option of the warmup: set warmup.overlap. Received: 'join'",
    ),
    (
        "train warmup=linear warmup.overlap=off",
        "warmup.overlap must be one of none, join, peak, multiply. Received: 'off'",
    ),
    (
        "train warmup=linear warmup.scale=2",
        "warmup.scale cannot be set: a warmup ends at a value of the schedule; set schedule.scale.",
    ),
    (
        "train cooldown=linear cooldown.floor=0.1",
        "cooldown.floor cannot be set: a cooldown ends at its end, which is its lowest value; set cooldown.end.",
    ),
    (
        "train schedule=multistep schedule.milestones=[]",
        "schedule.milestones must not be empty: for no drops use schedule=constant. Received: []",
    ),
    (
        "train schedule=multistep schedule.milestones=8",
        "schedule.milestones must be a list of durations, such as [50%, 75%]. Received: 8",
    ),
    ("train schedule=multistep schedule.milestones=[1000,2000]", "schedule.milestones must lie before the end …"),
    ("train schedule=multistep schedule.milestones=[20,10]", "schedule.milestones … must be increasing."),
    ("train schedule.end=-0.01", "schedule.end must be >= 0. Received: -0.01"),
    (
        "train schedule.length=0",
        "schedule.length must be longer than 0, or null for the rest of the run. Received: 0",
    ),
    ("train schedule.length=1000", "schedule.length must be at most the 570 steps that are left. Received: 1000"),
    (
        "train schedule=one_cycle schedule.length=0",
        "schedule.length must be longer than 0, or null for the rest of the run. Received: 0",
    ),
    ("train schedule=one_cycle schedule.up=100%", "schedule.up must leave steps for the way down: …"),
    ("train schedule=polynomial schedule.power=-1", "schedule.power must be > 0. Received: -1"),
    ("train schedule=restarts schedule.growth=0.5", "schedule.growth must be >= 1. Received: 0.5"),
    ("train schedule=restarts schedule.cycles=100000", "schedule…"),
    (
        "show schedule=step schedule.every=1 horizon.steps=10000000000",
        "schedule.every must make at most 1000000 turns …",
    ),
    ("show schedule=cyclic schedule.up=1 horizon.steps=10000000", "schedule.up must make at most 1000000 turns …"),
    ("train schedule=formula 'schedule.formula=1-2*u'", "schedule.formula must be a finite number >= 0, and is -…"),
    ("train schedule=formula 'schedule.formula=u.__class__'", "schedule.formula must not have an attribute: only …"),
    ("train schedule=formula 'schedule.formula=exec(u)'", "schedule.formula calls exec, which is not a function…"),
    ("train schedule=formula 'schedule.formula=9**9**9'", "schedule.formula is too large for a float at step 0 of 1…"),
    ("train schedule=formula 'schedule.formula=lambda: 1'", "schedule.formula must not have the character ':'…"),
    ("train warmup=formula 'warmup.formula=u/2'", "warmup must end at 1, which is the schedule's first value; …"),
    ("train cooldown=formula 'cooldown.formula=u'", "cooldown must begin at 1, which is the schedule's last value; …"),
    ("train schedule=table schedule.table=no.csv", "schedule.table must be a file that can be read (No such file …"),
    ("train schedule=table 'schedule.table=[[0,1],[0,2]]'", "schedule.table[1] must have a place after 0, that of …"),
    ("train schedule=product 'schedule.factors=[cosin]'", "schedule.factors[0].name has no option 'cosin'. Did you …"),
    (
        "show schedule=restarts schedule.period=2 schedule.cycles=null schedule.growth=1 horizon.steps=10000000000",
        "schedule.period must make at most 1000000 turns in a run, and this makes 4999999999.",
    ),
    (
        "show schedule=restarts schedule.growth=1 schedule.cycles=1000000000 horizon.steps=10000000000",
        "schedule.cycles must make at most 1000000 turns in a run, and this makes 1000000000.",
    ),
    ("show horizon.steps=10000000000 format=csv", "format=csv lists at most 10000000 steps, and the run has …"),
    ("train schedule=restarts schedule.period=10", "schedule.period or `cycles` must be set, and the other …"),
    (
        "train schedule=cyclic schedule.start=0.1 schedule.peak=0.01",
        "schedule.start must not be above schedule.peak (0.01). Received: 0.1",
    ),
    ("train schedule=exponential schedule.end=0.1", "schedule.gamma or `end` must be set, and the other one null. …"),
    ("train schedule=piecewise schedule.phases=[{a:1}]", "schedule.phases[0] must be a schedule, such as …"),
    (
        "train schedule=piecewise schedule.phases=[{_target_:lrkit.schedules.Cosine,T_max:1}]",
        "schedule.phases[0].T_max is not a key. Did you mean 'length'? …",
    ),
    (
        "train schedule=piecewise schedule.phases=[{_target_:lrkit.schedules.Cosine,start:-1}]",
        "schedule.phases[0].start must be >= 0. Received: -1",
    ),
    (
        "train schedule=piecewise schedule.phases=[{_target_:lrkit.schedules.Cosin}]",
        "schedule.phases[0]._target_ does not exist: lrkit.schedules has no Cosin. Did you mean 'Cosine'? …",
    ),
    ("train schedule._target_=lrkit.schedules.Cosin", "schedule._target_ does not exist: … Did you mean 'Cosine'? …"),
    (
        "train schedule._target_=torch.optim.lr_scheduler.CosineLR",
        "schedule._target_ does not exist: … has no CosineLR. Did you mean 'CosineAnnealingLR'? …",
    ),
    (
        "train schedule._target_=torch.optim.lr_scheduler.StepLR",
        "schedule._target_ must be a subclass of lrkit.schedules.Schedule. Received: 'torch.optim.lr_scheduler.StepLR'",
    ),
    ("train schedule._target_=os.system", "schedule._target_ must be a subclass of lrkit.schedules.Schedule. …"),
    ("train schedule._target_=Cosine", "schedule._target_ must be the dotted path of a class. Received: 'Cosine'"),
    ("train schedule._target_=nope.Nope", "schedule._target_ cannot be imported (No module named 'nope'). …"),
    # --- warmup and cooldown
    (
        "train warmup=linear warmup.length=1000",
        "warmup.length must leave steps for the schedule: it is 1000 of 570 steps; for a warmup alone use "
        "schedule=linear schedule.start=0 schedule.end=1. Received: 1000",
    ),
    ("train warmup=linear warmup.length=570", "warmup.length must leave steps for the schedule: …"),
    ("train warmup=linear warmup.length=2.5", "warmup.length must be a whole number of steps, or a share …"),
    (
        "train warmup=linear warmup.length=1.0",
        "warmup.length must be 1 for one step, or 100% for the whole run. Received: 1.0",
    ),
    ("train warmup=linear warmup.length=-1", "warmup.length must not be negative. Received: -1"),
    ("train warmup=linear warmup.length=5x", "warmup.length must be a length: 500 (optimizer steps), …"),
    ("train warmup=linear warmup.length=null", "warmup.length must be set."),
    (
        "train warmup=linear warmup.start=-2",
        "warmup.start must be >= 0. Received: -2",
    ),
    (
        "train warmup=exponential warmup.end=0.5",
        "warmup.end must not be set: a warmup ends at the schedule's first value. Received: 0.5",
    ),
    (
        "train cooldown=linear +cooldown.start=0.5",
        "cooldown.start must not be set: a cooldown starts at the schedule's last value. Received: 0.5",
    ),
    ("train cooldown=linear cooldown.end=2", "cooldown.end must not be above 0, where the cooldown begins. …"),
    (
        "train warmup=linear warmup.length=60% cooldown=linear cooldown.length=60%",
        "warmup.length leaves no step for the schedule: warmup 342 + cooldown 342 of 570 optimizer steps.",
    ),
    # --- reduce on plateau
    ("train schedule=plateau plateau.factor=1.5", "plateau.factor must be in (0, 1). Received: 1.5"),
    ("train schedule=plateau plateau.patience=-1", "plateau.patience must be a whole number of checks >= 0. …"),
    ("train plateau=reduce plateau.mode=up", "plateau.mode must be min or max. Received: 'up'"),
    ("train plateau=reduce plateau.monitor=null", "plateau.monitor must be the name of a metric. Received: None"),
    (
        "train schedule=plateau plateau=none",
        "plateau must be set with schedule=plateau: use plateau=reduce, or schedule=constant.",
    ),
    (
        "train plateau=reduce trainer.limit_val_batches=0",
        "plateau.monitor needs a validation, and trainer.limit_val_batches is 0. Received: 'val/loss'",
    ),
    ("train monitor=null", "monitor must be the name of a metric, or auto. Received: None"),
    # --- batch, data
    ("train data.batch_size=0", "data.batch_size must be a whole number >= 1. Received: 0"),
    ("train data.batch_size=8.0", "data.batch_size must be a whole number >= 1. Received: 8.0"),
    (
        "train data.batch_size=1000000 batch_scaling=linear",
        "data.batch_size must be at most 1197, with data.train_samples=1197 on 1 device(s). Received: 1000000",
    ),
    (
        "train data.batch_size=null",
        "data.batch_size must be a whole number >= 1. Received: None",
    ),
    ("show data.train_samples=null", "schedule.end needs the total number of optimizer steps, …"),
    ("train data.train_samples=0", "data.train_samples must be a whole number >= 1. Received: 0"),
    ("train data.train_samples=3", "data.batch_size must be at most 3, with data.train_samples=3 …"),
    (
        "train batch_scaling=linear batch_scaling.base_batch_size=0",
        "batch_scaling.base_batch_size must be a whole number >= 1. Received: 0",
    ),
    ("train batch_scaling=linear batch_scaling.rule=cubic", "batch_scaling.rule is not a rule. …"),
    ("show batch.effective=0", "batch.effective must be a whole number >= 1. Received: 0"),
    (
        "show batch.effective=100",
        "batch.effective must be a multiple of 32 = data.batch_size 32 x 1 device(s). Received: 100",
    ),
    (
        "show batch.effective=64 trainer.accumulate_grad_batches=2",
        "batch.effective and trainer.accumulate_grad_batches=2 both set accumulation.",
    ),
    ("show batch.effective=64 data.batch_size=null", "data.batch_size must be a whole number >= 1. Received: None"),
    ("show param_groups.rules=[{name:head}]", "param_groups.rules[0] must have a pattern or a max_ndim. …"),
    # --- the trainer, the horizon, the seed
    ("train trainer.max_epochs=0", "trainer.max_epochs must be a whole number >= 1. Received: 0"),
    ("train trainer.max_epochs=2.5", "trainer.max_epochs must be a whole number >= 1. Received: 2.5"),
    ("show trainer.max_time=foo", "trainer.max_time must be days:hours:minutes:seconds, such as 00:12:00:00, and …"),
    ("show trainer.max_time=-1", "trainer.max_time must be days:hours:minutes:seconds, …"),
    ("show trainer.max_time={minutes:0}", "trainer.max_time must be days:hours:minutes:seconds, …"),
    ("show trainer.deterministic=maybe", "trainer.deterministic must be true, false or warn. Received: 'maybe'"),
    (
        "show trainer.num_sanity_val_steps=-5",
        "trainer.num_sanity_val_steps must be a whole number >= 0, or -1 for all. …",
    ),
    ("show trainer.min_steps=-3", "trainer.min_steps must be a whole number >= 0. Received: -3"),
    (
        "show trainer.min_epochs=4 trainer.max_epochs=3",
        "trainer.min_epochs must be at most trainer.max_epochs, which is 3. Received: 4",
    ),
    ("show trainer.gradient_clip_algorithm=x", "trainer.gradient_clip_algorithm must be norm or value. Received: 'x'"),
    ("show trainer.benchmark=3", "trainer.benchmark must be true or false. Received: 3"),
    (
        "train trainer.max_epochs=null",
        "trainer.max_epochs or trainer.max_steps must be set: a run needs an end.",
    ),
    (
        "train trainer.accumulate_grad_batches=100",
        "trainer.accumulate_grad_batches must be at most 38, the batches of an epoch. Received: 100",
    ),
    ("train trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be a whole number >= 1. …"),
    ("train trainer.devices=0", "trainer.devices must be a number >= 1, a list of devices, or auto. Received: 0"),
    ("train trainer.num_nodes=0", "trainer.num_nodes must be a whole number >= 1. Received: 0"),
    (
        "train trainer.limit_train_batches=0",
        "trainer.limit_train_batches must be a number of batches >= 1, or a share of them in (0, 1]. Received: 0",
    ),
    (
        "train trainer.limit_train_batches=0.0001",
        "trainer.limit_train_batches leaves none of the 38 batches to train on. Received: 0.0001",
    ),
    ("train trainer.fast_dev_run=-1", "trainer.fast_dev_run must be true, false or a number of batches. …"),
    ("train trainer.val_check_interval=0", "trainer.val_check_interval must be a number of batches >= 1, …"),
    ("train trainer.val_check_interval=1000", "trainer.val_check_interval must be at most 38, …"),
    ("train trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch must be a whole number >= 1. …"),
    ("train trainer.log_every_n_steps=0", "trainer.log_every_n_steps must be a whole number >= 1. Received: 0"),
    ("train trainer.gradient_clip_val=-1", "trainer.gradient_clip_val must be a number >= 0, or null. Received: -1"),
    ("train trainer.detect_anomaly=2", "trainer.detect_anomaly must be true or false. Received: 2"),
    ("train trainer.enable_progress_bar=x", "trainer.enable_progress_bar must be true, false or null. …"),
    ("show horizon.steps=0", "horizon.steps must be a whole number >= 1, or null. Received: 0"),
    ("show horizon=5", "horizon must be a group of keys, such as horizon.steps. Received: 5"),
    ("train seed=-1", "seed must be a whole number in [0, 4294967295]. Received: -1"),
    ("train seed=null", "seed must be a whole number in [0, 4294967295]. Received: None"),
    ("train trainer.precision=fp17", "trainer.precision must be one of 16-true, …"),
    ("train trainer.accelerator=gpuu", "trainer.accelerator must be one of auto, cpu, gpu, … Received: 'gpuu'"),
    (
        "train trainer.accelerator=cpu trainer.devices=-1",
        "trainer.devices must be a number >= 1, or auto, with trainer.accelerator=cpu. Received: -1",
    ),
    ("train trainer.strategy=dpp", "trainer.strategy must be one of auto, ddp, …"),
    ("train trainer.profiler=fast", "trainer.profiler must be one of simple, advanced, …"),
    (
        "train trainer.plugins=[x]",
        "trainer.plugins must be a plugin by _target_, or a list of plugins. Received: ['x']",
    ),
    ("train trainer.devices=[a]", "trainer.devices must be a number >= 1, a list of devices, or auto. …"),
    (
        "train trainer.gradient_clip_algorithm=norm",
        "trainer.gradient_clip_algorithm needs trainer.gradient_clip_val: it has no effect alone. …",
    ),
    ("train trainer.limit_predict_batches=3", "trainer.limit_predict_batches must be null: …"),
    (
        "train trainer.max_steps=10 horizon.steps=20",
        "horizon.steps must be trainer.max_steps, 10, or null; the first 10 steps of a run of 20 are"
        " horizon.stop_after=10. Received: 20",
    ),
    (
        "train trainer.max_epochs=-1 trainer.max_steps=20 horizon.steps=10",
        "horizon.steps must be trainer.max_steps, 20, or null. Received: 10",
    ),
    # --- the optimizer
    ("train +optimizer.learning_rate=0.1", "optimizer.learning_rate is unknown to SGD. …"),
    ("train optimizer._target_=torch.optim.AdamW optimizer.momentum=0.8", "optimizer.momentum is unknown to AdamW. …"),
    ("train optimizer.momentum=1.5", "optimizer.momentum must be a number in [0, 1). Received: 1.5"),
    ("train optimizer.momentum=nan", "optimizer.momentum must be a number in [0, 1). Received: nan"),
    ("train optimizer.momentum=true", "optimizer.momentum must be a number in [0, 1). Received: True"),
    ("train optimizer.weight_decay=-1", "optimizer.weight_decay must be a number >= 0. Received: -1"),
    ("train optimizer.weight_decay=inf", "optimizer.weight_decay must be a number >= 0. Received: inf"),
    (
        "train optimizer=adamw optimizer.betas=[0.9]",
        "optimizer.betas must be two numbers in [0, 1). Received: [0.9]",
    ),
    ("train optimizer=adamw optimizer.betas=[1.0,0.999]", "optimizer.betas must be two numbers in [0, 1). …"),
    ("train optimizer=adamw optimizer.eps=0", "optimizer.eps must be a number > 0. Received: 0"),
    ("train optimizer=adamw optimizer.amsgrad=1", "optimizer.amsgrad must be true or false. Received: 1"),
    (
        "train optimizer.nesterov=true optimizer.momentum=0",
        "optimizer.nesterov needs optimizer.momentum > 0, which is 0 for SGD. Received: True",
    ),
    (
        "train optimizer.nesterov=true optimizer.dampening=0.1",
        "optimizer.nesterov needs optimizer.dampening=0. Received: 0.1",
    ),
    (
        "train optimizer=adamw +optimizer.fused=true +optimizer.foreach=true",
        "optimizer.fused and optimizer.foreach choose two implementations: set only one of them.",
    ),
    (
        "train 'optimizers={generator:{optimizer:{momentum:nan}}}'",
        "optimizers.generator.optimizer.momentum must be a number in [0, 1). Received: nan",
    ),
    (
        "train optimizer=prodigy param_groups=layerwise",
        "param_groups.layer_decay must be null: Prodigy has one rate for all layers. Received: 0.75",
    ),
    # --- going on
    ("train resume.policy=foo", "resume.policy is not a policy. Accepted: … Received: 'foo'"),
    ("train resume.policy=restore", "resume.path must be set with resume.policy=restore."),
    ("train resume.path=missing.ckpt", "resume.path must be an existing checkpoint or the folder of a run. …"),
    ("train resume.path=last", "resume.path must be an existing checkpoint or the folder of a run. Received: 'last'"),
    (
        "train resume.path=.",
        "resume.path must be a checkpoint or the folder of a run: there is no checkpoints/last.ckpt. …",
    ),
    # --- loggers and callbacks
    ("train logger.tensorboard=5", "logger.tensorboard._target_ must be set."),
    ("train +callbacks.mine.patience=5", "callbacks.mine._target_ must be set."),
    # --- the command itself
    ("trian", "lrkit has no command 'trian'. Did you mean 'train'? …"),
    (
        "show --cfg job",
        "--cfg=job is not a flag of lrkit show: it takes -m, --config, --config-dir, --trust and --traceback.",
    ),
    ("show format=pdf", "format is not a format. Accepted: csv, json, png, text. Received: 'pdf'"),
    ("train --config-dir=/nope", "--config-dir must be an existing folder. Received: '/nope'"),
    ("train --config-dir", "--config-dir must be an existing folder. Received: None"),
    (f"train resume.path={'x' * 5000}", "resume.path must be a path that can be read (File name too long). …"),
    (f"compare {'x' * 5000}", "xxx…xxx does not exist."),
    ("train --foo=1", "--foo is not a flag of lrkit train. …"),
    ("train -m --cfg hydra", "-m and --cfg cannot be used together."),
    ("train --cfg job -r", "--cfg and -r cannot be used together."),
    ("train -m seed=1,2 -m", "-m is given twice."),
    ("train -m=3", "-m takes no value. Received: '3'"),
    ("train --resolve", "--resolve has an effect only with --cfg: lrkit train --cfg job."),
    ("train --cfg job -p", "-p must be followed by a group, such as optimizer."),
    ("train --cfg job -p nope", "lrkit train was refused by Hydra: package 'nope' not found in config."),
    ("train --cfg job nope=1", "nope is not a key. …"),
    ("train --cfg job seed=1,2", "seed takes one value; to sweep: lrkit train -m seed=1,2."),
    ("train --info", "--info must be followed by all, config, …"),
    ("train --help nope=1", "nope is not a key. …"),
    (
        "train -sc",
        "-sc is refused: lrkit completion bash prints the script, also for zsh and fish.",
    ),
    ("train hydra.mode=MULTIRUN", "hydra.mode must not be set: -m makes a sweep. Received: 'hydra.mode=MULTIRUN'"),
    ("train hydra.nope=1", "config cannot be composed: Could not override 'hydra.nope'. …"),
    ("train --experimental-rerun x.pickle", "--experimental-rerun is refused: it would execute code of the file."),
]

#: Mistakes that only `lrkit train` can have: its flags, and its use of Hydra.
ALONE = {"--foo", "--cfg", "-m=3", "-m", "-sc", "--resolve", "--info", "--help", "--experimental-rerun", "hydra.mode",
         "hydra.nope"}  # fmt: skip

# Refused once torch is there, but before any data is.
BEFORE_THE_DATA = [
    ("optimizer._target_=torch.optim.AdmaW", "optimizer._target_ torch.optim has no AdmaW. Did you mean 'AdamW'? …"),
    (
        "optimizer._target_=os.system",
        "optimizer._target_ must be the full path of a subclass of torch.optim.Optimizer. Received: 'os.system'",
    ),
    (
        "optimizer._target_=torch.nn.Linear",
        "optimizer._target_ must be a subclass of torch.optim.Optimizer. Received: 'torch.nn.Linear'",
    ),
    ("optimizer._target_=nope.Adam", "optimizer._target_ needs the package nope, which cannot be found. …"),
    ("data.seed=-1", "data.seed must be a whole number >= 0. Received: -1"),
    ("+data.foo=1", "data.foo is not a key. …"),
    (
        "data._target_=lrkit.data.Digit",
        "data._target_ does not exist: lrkit.data has no Digit. Did you mean 'Digits'? …",
    ),
    ("data=arrays data.path=/nope.txt", "data.path must end in .npz or .csv. Received: '/nope.txt'"),
    ("data=text data.context=-1", "data.context must be a whole number >= 1. Received: -1"),
    ("hydra.run.dir='${nope}'", "hydra.run.dir was refused by Hydra: Interpolation key 'nope' not found."),
]

# Refused when the data has been read, or could not be; before the fit.
BEFORE_THE_FIT = [
    ("data=idx data.path=/nope", "data.path must be an existing folder. Received: '/nope'"),
    ("data=arrays data.path=/nope.npz", "data.path must be …"),
    (
        "data.train_samples=33",
        "data.train_samples must be null or 1197, the number of training samples. Received: 33",
    ),
    ("model.hidden=[a]", "model.hidden must be a list of whole numbers >= 1. Received: ['a']"),
    ("model=custom model._target_=nope.Nope", "model._target_ cannot be imported (No module named 'nope'). …"),
    (
        "model=custom model._target_=os.system",
        "model._target_ must be a subclass of torch.nn.Module, such as a LightningModule, or a function of yours whose"
        " return type is one. Received: 'os.system'",
    ),
    ("+callbacks.a._target_=torch.nn.ReLU", "callbacks.a._target_ must be a Lightning callback. …"),
    (
        "+callbacks.a._target_=pytorch_lightning.callbacks.EarlyStopping",
        "callbacks.a cannot be built: … missing 1 required positional argument: 'monitor'.",
    ),
    (
        "+callbacks.a._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler +callbacks.a.scheduling={0:1}",
        "callbacks.a changes accumulation during the run, so no step count can be planned: …",
    ),
]

# Refused after a validation, or by the optimizer itself; before the first training step.
BEFORE_THE_FIRST_STEP = [
    (
        "schedule=plateau plateau.monitor=val/los",
        "plateau.monitor names a metric that is not logged. Did you mean 'val/loss'? Accepted: val/accuracy, val/loss."
        " Received: 'val/los'",
    ),
    ("monitor=val_los", "monitor names a metric that is not logged. …"),
    ("param_groups.rules=[{name:top,pattern:nope}]", "param_groups.rules[0].pattern must match a parameter: …"),
]


# Refused at the latest with the first batch: a model and data of the user's own, with a mistake in them.
MODULE, DATA = (
    "model=custom model._target_=broken_models.",
    "data=custom data._target_=broken_models.Data +data.kind=",
)
UNFIT = [
    (f"{MODULE}Nothing", "model has no trainable parameters: it has no parameters."),
    (f"{MODULE}Frozen", "model has no trainable parameters: every one of them is frozen."),
    (f"{MODULE}NoStep", "model._target_ must have a training_step. Received: 'broken_models.NoStep'"),
    (f"{MODULE}Detached", "model must return a loss that depends on its parameters: this one has no gradient."),
    (
        f"{MODULE}Module +model.loss=vector",
        "model must return one number as the loss of a batch. Received: 'float32 (32)'",
    ),
    (f"{MODULE}Module +model.loss=number", "model cannot use the first batch: … `training_step` must return a Tensor…"),
    (
        f"{MODULE}Net +model.inputs=8",
        "model cannot use the first batch: RuntimeError: …mat1 and mat2 shapes cannot be multiplied (32x64 and 8x10)"
        " (broken_models.py, line …, in forward); the batch is [float32 (32, 64), int64 (32)], the parameters are"
        " float32.",
    ),
    (
        f"{MODULE}Net +model.outputs=3",
        "data must give classes from 0 to 2 for 3 outputs of the network. Received: '1 to 9'",
    ),
    (f"{MODULE}Doubled", "model cannot use the first batch: … same dtype… the parameters are float64."),
    (f"{DATA}narrow {MODULE}Module", "model cannot use the first batch: … the batch is [float32 (8, 5), int64 (8)], …"),
    (
        f"{DATA}double {MODULE}Module",
        "model cannot use the first batch: … the batch is [float64 (8, 64), int64 (8)], …",
    ),
    (f"{DATA}labels {MODULE}Module", "model cannot use the first batch: IndexError: Target 12 is out of bounds …"),
    (f"{DATA}alone {MODULE}Module", "model cannot use the first batch: ValueError: not enough values to unpack …"),
    (
        f"{DATA}empty {MODULE}Module",
        "data must have a batch to train on: it is empty, or drop_last drops its only batch.",
    ),
    (
        f"{DATA}few {MODULE}Module",
        "data must have a batch to train on: it is empty, or drop_last drops its only batch.",
    ),
    (f"{DATA}none {MODULE}Module", "data was refused by Lightning: … `Data.train_dataloader()`. Found None."),
    (
        f"{DATA}stream {MODULE}Module",
        "schedule.end needs the total number of optimizer steps, which is not known: set trainer.max_steps …",
    ),
]

# Errors that cannot be found before the run: also one line, with the line of code; the exit code is 1.
FAILS = [
    (
        f"{MODULE}Module +model.loss=late",
        "ArithmeticError: no good any more (broken_models.py, line …, in training_step); …",
    ),
    (f"{DATA}unreadable {MODULE}Module", "KeyError: 'no such sample' (broken_models.py, line …, in __getitem__); …"),
    (f"{DATA}absent {MODULE}Module", "FileNotFoundError: no file for me (broken_models.py, line …, in setup); …"),
]

#: Input that other programs refuse or misread, and that lrkit accepts with its intended meaning.
RUNS = "runs: "


def says(line: str, expected: str) -> bool:
    """Return whether ``line`` is the expected answer of a row; each ellipsis matches any text."""
    first, *rest = expected.split("…")
    if not rest:
        return line == expected
    at = len(first) if line.startswith(first) else -1
    for part in rest:
        found = line.find(part, at) if at >= 0 else -1
        at = found + len(part) if found >= 0 else -1
    return at >= 0 and (rest[-1] == "" or line.endswith(rest[-1]))


def refused(command: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on the error stream, exit code 2, and nothing else."""
    assert main(shlex.split(command)) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("lrkit: ")
    assert says(lines[0].removeprefix("lrkit: "), expected), lines[0]
    assert "Traceback" not in out + err


def forbid(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def reached(*_: Any, **__: Any) -> None:
        pytest.fail(f"{owner.__name__}.{name} was reached")

    monkeypatch.setattr(owner, name, reached)


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.mark.parametrize(("command", "expected"), FROM_THE_CONFIG)
def test_refused_from_the_config_alone(
    command: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, Trainer, "__init__")
    forbid(monkeypatch, InMemoryData, "__init__")
    refused(command, expected, capsys)
    assert not list(Path().iterdir())
    if command.startswith("train ") and not ALONE & {word.partition("=")[0] for word in shlex.split(command)}:
        refused(f"show{command.removeprefix('train')}", expected, capsys)


@pytest.mark.parametrize(("overrides", "expected"), BEFORE_THE_DATA)
def test_refused_before_there_is_data(
    overrides: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, Trainer, "__init__")
    forbid(monkeypatch, InMemoryData, "setup")
    refused(f"train {overrides}", expected, capsys)


@pytest.mark.parametrize(("overrides", "expected"), BEFORE_THE_FIT)
def test_refused_before_the_fit(
    overrides: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, Trainer, "fit")
    given = [word.partition("=")[0] for word in overrides.split()]
    if "data.train_samples" in given:
        overrides += " data.batch_size=1"
    refused(f"train {overrides}", expected, capsys)


@pytest.mark.parametrize(("overrides", "expected"), BEFORE_THE_FIRST_STEP)
def test_refused_before_the_first_step(
    overrides: str, expected: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, Supervised, "training_step")
    main(["train", *shlex.split(overrides), "logger=none"])
    err = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert says(err[-1].removeprefix("lrkit: "), expected), err
    assert "Traceback" not in "".join(err)


@pytest.mark.filterwarnings("ignore:You passed in a `val_dataloader`")
@pytest.mark.parametrize(("overrides", "expected", "code"), [*((*u, 2) for u in UNFIT), *((*f, 1) for f in FAILS)])
def test_a_mistake_in_code_is_one_line(
    overrides: str, expected: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *overrides.split(), "logger=none"]) == code
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert says(line.removeprefix("lrkit: "), expected), line
    assert "Traceback" not in out + err


def test_traceback_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--traceback", "show", "seed=a"], ["show", "seed=a", "--traceback"]):
        assert main(words) == 2
        first, *_, last = capsys.readouterr().err.splitlines()
        assert (first, last) == (
            "Traceback (most recent call last):",
            "lrkit: seed must be a whole number in [0, 4294967295]. Received: 'a'",
        )
    assert main(["show", "seed=a"]) == 2 and "Traceback" not in capsys.readouterr().err


def _study() -> list[tuple[str, str]]:
    """What a stock template is told, and what lrkit is told instead, or the test that shows what it does there."""
    lines = Path(__file__).with_name("bad_inputs.tsv").read_text().splitlines()[1:]
    return [(stock, here) for stock, _, here in (line.partition("\t") for line in lines)]


def test_every_row_of_the_study_has_its_answer() -> None:
    rest = BEFORE_THE_DATA + BEFORE_THE_FIT + BEFORE_THE_FIRST_STEP + UNFIT + FAILS
    commands = {command for command, _ in FROM_THE_CONFIG} | {f"train {overrides}" for overrides, _ in rest}
    for stock, here in _study():
        if here.startswith("tests/"):
            file, _, name = here.partition("::")
            assert f"def {name}(" in (ROOT / file).read_text(), here
        elif not here.startswith(RUNS):
            assert here in commands, (stock, here)


@pytest.mark.parametrize("command", sorted({here for _, here in _study() if here.startswith(RUNS)}))
def test_what_is_no_mistake_here(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(command.removeprefix(RUNS))) == 0
    assert capsys.readouterr().err == ""


def test_a_run_that_is_only_rehearsed_is_planned_as_such(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``fast_dev_run`` and ``overfit_batches`` change the length of the run, and the plan knows."""
    for override, steps in (("trainer.fast_dev_run=3", 3), ("trainer.overfit_batches=2", 30)):
        assert main(["show", override, "format=csv"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 1 + steps


def test_rows_are_not_repeated() -> None:
    commands = [row[0] for row in FROM_THE_CONFIG]
    assert sorted(set(commands)) == sorted(commands)


def test_an_ellipsis_is_any_text_and_nothing_else_is() -> None:
    assert says("a must be 5. Received: 6", "a must be 5. …")
    assert says("a [3] must be 5.", "a … must be 5.")
    assert not says("a must be 5.", "a must be 6.")
    assert not says("a must be 5. Received: 6", "a must be 5.")
    assert not says("a must be 5. Received: 6", "… must be 5.")

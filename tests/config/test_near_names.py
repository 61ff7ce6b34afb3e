"""What a user of another library types: each wrong key, option and flag gets one line with the right one."""

from __future__ import annotations

import re

import pytest

from lrkit.base.errors import ConfigError
from lrkit.cli.arguments import asks_for_information, suggest_override
from lrkit.config import near_names
from lrkit.config.compose import compose
from lrkit.config.overrides import default_choices, leaf_paths
from lrkit.config.shipped_options import option_names
from lrkit.config.unknown_keys import keys_of_options, unknown_key

#: Wrong key -> the key or words that the message must have. Keras, torch, Lightning, timm, Hugging Face.
KEYS = dict(
    line.split(maxsplit=1)
    for line in """
epochs                         'trainer.max_epochs'
num_train_epochs               'trainer.max_epochs'
max_epochs                     'trainer.max_epochs'
trainer.epochs                 'max_epochs'
training.epochs                'trainer.max_epochs'
horizon.epochs                 'trainer.max_epochs'
lr                             'optimizer.lr'
learning_rate                  'optimizer.lr'
base_lr                        'optimizer.lr'
optimizer.learning_rate        'lr'
max_lr                         'optimizer.lr'
batch_size                     'data.batch_size'
per_device_train_batch_size    'data.batch_size'
data.bs                        'batch_size'
weight_decay                   'optimizer.weight_decay'
optimizer.wd                   'weight_decay'
momentum                       'optimizer.momentum'
betas                          'optimizer.betas', a key of optimizer=
beta1                          'optimizer.betas'
scheduler                      'schedule'
lr_scheduler_type              'schedule'
optim                          'optimizer'
dataset                        'data'
arch                           'model'
warmup_steps                   warmup=linear warmup.length=...
warmup_ratio                   warmup=linear warmup.length=...
max_steps                      'trainer.max_steps'
num_training_steps             'trainer.max_steps'
steps                          'trainer.max_steps'
gpus                           'trainer.devices'
device                         'trainer.accelerator'
fp16                           trainer.precision=16-mixed
bf16                           trainer.precision=bf16-mixed
precision                      'trainer.precision'
clipnorm                       'trainer.gradient_clip_val'
max_grad_norm                  'trainer.gradient_clip_val'
clip_grad                      'trainer.gradient_clip_val'
gradient_accumulation_steps    'trainer.accumulate_grad_batches'
eval_steps                     'trainer.val_check_interval'
logging_steps                  'trainer.log_every_n_steps'
patience                       callbacks=early_stopping
model_ema                      callbacks=ema
early_stopping                 callbacks=early_stopping
resume_from_checkpoint         'resume.path'
ckpt_path                      'resume.path'
output_dir                     'hydra.run.dir'
default_root_dir               'hydra.run.dir'
save_steps                     callbacks=checkpoint_every
num_workers                    'data.workers', a key of data=datasets
data.num_workers               'data.workers', a key of data=datasets
random_seed                    'seed'
eta_min                        'schedule.end'
schedule.eta_min               'end'
T_max                          'schedule.length'
gamma                          'schedule.gamma', a key of schedule=
step_size                      'schedule.every', a key of schedule=
milestones                     'schedule.milestones', a key of schedule=multistep
report_to                      'logger'
wandb                          logger=wandb
schedule.gamma                 It is one of schedule=cyclic, exponential,
nesterov                       'optimizer.nesterov'
layer_decay                    param_groups=layerwise
dropout                        'model.dropout'
hidden_size                    'model.hidden'
loss                           a LightningModule with this loss
metric_for_best_model          'monitor'
strategy                       'trainer.strategy'
validation_split               'data.val_fraction', a key of data=
effective_batch_size           'batch.effective'
optimizer.fused                +optimizer.fused=...
optimizer.betas                It is one of optimizer=adabound,
callbacks.early_stopping.patience of callbacks=early_stopping, which is not chosen
""".strip().splitlines()
)

#: Group=wrong option -> the option or words that the message must have.
OPTIONS = dict(
    line.split(maxsplit=1)
    for line in """
schedule=OneCycleLR            'one_cycle'
schedule=CosineAnnealingLR     'cosine'
schedule=StepLR                'step'
schedule=CosineAnnealingWarmRestarts 'restarts'
schedule=cosine_with_restarts  'restarts'
schedule=ReduceLROnPlateau     'plateau'
schedule=warmup_cosine         warmup=linear schedule=cosine
schedule=poly                  'polynomial'
schedule=ExponentialDecay      'exponential'
schedule=none                  'constant'
schedule=noam                  'inverse_sqrt'
schedule=LambdaLR              'formula'
schedule=SequentialLR          'piecewise'
schedule=mycode.Shape          schedule=custom schedule._target_=mycode.Shape
optimizer=AdamW                'adamw'
optimizer=SGD                  'sgd'
optimizer=sgd_nesterov         optimizer.nesterov=true
optimizer=sgdm                 'momentum'
optimizer=adamax               optimizer=custom optimizer._target_=torch.optim.Adamax
optimizer=fused_adamw          'adamw'
optimizer=mycode.Opt           optimizer=custom optimizer._target_=mycode.Opt
data=mnist                     data=torchvision data.name=MNIST
data=cifar10                   data=torchvision data.name=CIFAR10
data=imagenet                  data.name=ImageFolder
data=csv                       'arrays'
model=resnet18                 model=custom model._target_=torchvision.models.resnet18
model=cnn                      'cnn2d'
model=mycode.Net               model=custom model._target_=mycode.Net
warmup=500                     warmup=linear warmup.length=500
warmup=5%                      warmup=linear warmup.length=5%
warmup=true                    'linear'
warmup=off                     'none'
cooldown=0.2                   cooldown=linear cooldown.length=0.2
plateau=ReduceLROnPlateau      'reduce'
guard=none                     'off'
logger=WeightsAndBiases        'wandb'
logger=tb                      'tensorboard'
callbacks=EarlyStopping        'early_stopping'
callbacks=ModelCheckpoint      'checkpoint_every'
param_groups=llrd              'layerwise'
batch_scaling=goyal            'linear'
trainer=gpu                    trainer.accelerator=gpu
trainer=ddp                    trainer.strategy=ddp
""".strip().splitlines()
)


@pytest.fixture(scope="module")
def keys() -> list[str]:
    return list(leaf_paths(compose()))


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_key_gets_the_right_one(key: str, keys: list[str]) -> None:
    line = str(unknown_key(key, keys, default_choices()))
    assert KEYS[key] in line
    assert re.match(rf"{re.escape(key)} is (not )?a key", line)
    assert "\n" not in line and ". ." not in line


@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_option_gets_the_right_one(option: str) -> None:
    group, _, name = option.partition("=")
    hint = near_names.suggest_option(group, name, option_names(group))
    assert OPTIONS[option] in hint and hint.endswith(f"Accepted: {', '.join(option_names(group))}")


def test_the_tables_name_what_exists() -> None:
    known = {*keys_of_options(), *leaf_paths(compose()), *default_choices(), "hydra.run.dir"}
    for words in near_names._ELSEWHERE.values():
        if "=" not in words:
            assert words in known, words
    for group, table in near_names._OPTIONS.items():
        for name, words in table.items():
            assert name == re.sub("[^a-z0-9]", "", name.lower())
            assert name not in option_names(group), f"{group}={name} exists"
            assert "=" in words or words in option_names(group), words
    for words in [
        *near_names._ELSEWHERE.values(),
        *(w for table in near_names._OPTIONS.values() for w in table.values()),
    ]:
        for group, option in re.findall(r"\b(\w+)=(\w+)", words):
            assert group not in default_choices() or option in option_names(group), words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=custom", "model._target_=torch.nn.Linear", "model.hidden=64"],
         "model.hidden is not a key; for an argument of your class write +model.hidden=...."),
        (["optimizer._target_=mycode.Opt", "optimizer.beta=1"],
         "optimizer.beta is not a key; for an argument of your class write +optimizer.beta=...."),
        (["optimizer=custom", "optimizer._target_=mycode.Opt", "optimizer.lrr=1"],
         "optimizer.lrr is not a key. Did you mean 'lr'? Accepted: lr."),
        (["schedule=step", "schedule.power=2"], "not of schedule=step. Accepted: every, "),
        (["+epochs=3"], "epochs is not a key. Did you mean 'trainer.max_epochs'?"),
        (["data=mnist"], "data has no option 'mnist'. Write data=torchvision data.name=MNIST. Accepted: arrays, "),
        (["batch=32"], "batch must be a group of keys, such as batch.effective. Received: 32"),
        (["resume=outputs/x"], "resume must be a group of keys, such as resume.path. Received: 'outputs/x'"),
    ],
)  # fmt: skip
def test_a_composed_line_says_so_too(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert message.replace("....", "...") in str(caught.value)


@pytest.mark.parametrize(
    ("flag", "words"),
    [("--epochs=3", "trainer.max_epochs=3"), ("--lr", "optimizer.lr=..."), ("--batch-size=8", "data.batch_size=8"),
     ("--optimizer=adam", "optimizer=adam"), ("--fp16", "trainer.precision=16-mixed"),
     ("--max_epochs", "trainer.max_epochs=..."),
     ("--schedule.end=0", "schedule.end=0"), ("--seed=1", "seed=1")],
)  # fmt: skip
def test_a_flag_that_is_a_key_is_written_as_an_override(flag: str, words: str) -> None:
    assert suggest_override(flag) == f": write {words}"
    with pytest.raises(ConfigError, match=f"is not a flag of lrkit train: write {re.escape(words)}"):
        asks_for_information([flag])

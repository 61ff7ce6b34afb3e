"""The commands: what each does, which words it takes, and the function that runs it. Help and completion read this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType

__all__ = ["COMMANDS", "FLAG_VALUES", "Command", "CommandKey"]

_CONFIG_DIR = {"--config-dir DIR": "a folder of your own groups and options; they replace options of the same name"}
_CONFIG = {"--config FILE": "the whole config of a run, its config.yaml, in place of the defaults"}
_TRACEBACK = {"--traceback": "the Python traceback of an error"}
#: The values of the flags of Hydra's that take one of a list.
FLAG_VALUES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
})  # fmt: skip
_TRUST = {"--trust PACKAGE": "allow files to name classes of this package; may be repeated"}


@dataclass(frozen=True)
class CommandKey:
    """A key of a command itself, not of the run.

    Args:
        name: such as ``format``.
        meaning: in one line.
        values: the values to choose from; ``FOLDER`` stands for a path.
    """

    name: str
    meaning: str
    values: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        return f"{self.name}={'|'.join(self.values) or 'VALUE'}"


@dataclass(frozen=True)
class Command:
    """A command of ``lrkit``.

    Args:
        usage: the words after ``lrkit NAME``.
        sentence: its purpose, one line.
        run: the function that runs it, ``module.function``; it takes the words after the name, returns the exit code.
        examples: command lines, each with its meaning.
        keys: its own keys.
        flags: its flags, each with its meaning; ``--flag VALUE`` takes a value.
        section: the section of ``train.yaml`` that is about this command.
        overrides: whether it takes the overrides of a run.
        paths: whether it takes paths.
        words: the words to choose from, for a command that takes one.
        together: whether every process of a launcher runs it; any other command runs only in the first one.
    """

    usage: str
    sentence: str
    run: str
    examples: Mapping[str, str] = field(default_factory=dict)
    keys: tuple[CommandKey, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    section: str = ""
    overrides: bool = False
    paths: bool = False
    words: tuple[str, ...] = ()
    together: bool = False

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags without their values; the short form of one that has it."""
        return tuple(flag.replace(",", " ").split()[0] for flag in self.flags)

    def load(self) -> Callable[[list[str]], int]:
        """The function that runs the command; it imports only the modules of this command."""
        module, _, name = self.run.rpartition(".")
        function: Callable[[list[str]], int] = getattr(import_module(module), name)
        return function


#: The commands by their names, in the order of the help page.
COMMANDS: Mapping[str, Command] = MappingProxyType({
    "train": Command(
        "[GROUP=OPTION ...] [GROUP.KEY=VALUE ...]", "train a model; -m trains all combinations of several values",
        "lrkit.cli.train.run_train", overrides=True, together=True,
        examples={
            "lrkit train schedule=one_cycle optimizer=adamw optimizer.lr=0.003": "one run",
            "lrkit train -m schedule=step,cosine optimizer.lr=0.03,0.1 seed=1,2,3": "a sweep of twelve runs",
            "lrkit train resume.path=outputs/runs/2026-11-23_21-45-03": "continue a run",
        },
        flags={
            "-m, --multirun": "a sweep: a key takes several values, key=a,b",
            **_CONFIG, **_CONFIG_DIR, **_TRUST,
            "--cfg job|hydra|all": "print the config of these words, and train nothing; --resolve, --package GROUP",
            "--info TOPIC": "Hydra's view of the config: all, config, defaults, defaults-tree, plugins or searchpath",
            "--hydra-help": "the flags of Hydra",
            **_TRACEBACK,
        },
    ),
    "find": Command(
        "[GROUP=OPTION ...] [GROUP.KEY=VALUE ...]", "find a learning rate by a range test and short runs",
        "lrkit.cli.find.run_find", overrides=True, together=True, section="find",
        examples={
            "lrkit find optimizer=adamw": "the last line is the override to type: optimizer.lr=...",
            "lrkit find optimizer=adamw find.confirm=false": "the range test only",
        },
        flags={**_CONFIG, **_CONFIG_DIR, **_TRUST, **_TRACEBACK},
    ),
    "show": Command(
        "[GROUP=OPTION ...] [GROUP.KEY=VALUE ...] [format=FORMAT]",
        "print the learning rates of a run before it; no data, no torch", "lrkit.cli.show.run_show", overrides=True,
        examples={
            "lrkit show schedule=cosine warmup=linear warmup.length=5% horizon.steps=1000": "table and curve",
            "lrkit show -m schedule=step,cosine format=png": "several curves in one picture",
        },
        keys=(CommandKey("format", "text (default), csv: each step, json: the plan, png: a picture",
                         ("text", "csv", "json", "png")),),
        flags={"-m, --multirun": "several plans: a key takes several values, key=a,b", **_CONFIG, **_CONFIG_DIR,
               **_TRUST, **_TRACEBACK},
    ),
    "translate": Command(
        "RATE_OR_RUN [from.GROUP=OPTION ...] [GROUP=OPTION ...] [GROUP.KEY=VALUE ...]",
        "carry a learning rate to another schedule or length", "lrkit.cli.translate.run_translate", overrides=True,
        examples={
            "lrkit translate 0.1 from.schedule=constant schedule=cosine": "0.1 was the best constant rate",
            "lrkit translate outputs/runs/2026-11-23_21-45-03 trainer.max_epochs=60": "from the rate of a run",
            "lrkit train optimizer.lr=from:outputs/runs/2026-11-23_21-45-03 schedule=linear": "translate, then train",
        },
        keys=(CommandKey("format", "text (default) or json", ("text", "json")),),
        flags={**_CONFIG_DIR, **_TRUST, **_TRACEBACK},
    ),
    "predict": Command(
        "RUN... GROUP=OPTION,... [GROUP.KEY=VALUE,...] [format=FORMAT] [out=FOLDER]",
        "rank schedules that were not trained, by the curves of finished runs", "lrkit.cli.predict.run_predict",
        overrides=True, paths=True,
        examples={
            "lrkit predict outputs/sweeps/2026-11-23_21-45-03 schedule=linear,sqrt,wsd": "from the runs of a sweep",
            "lrkit predict outputs/runs schedule=linear,wsd horizon.steps=2000": "at another length",
        },
        keys=(
            CommandKey("format", "text (default) with files, csv, json, or png: a picture",
                       ("text", "csv", "json", "png")),
            CommandKey("out", "the folder of the files; default: a new one in outputs/predict", ("FOLDER",)),
        ),
        flags={**_CONFIG_DIR, **_TRUST, **_TRACEBACK},
    ),
    "compare": Command(
        "FOLDER... [metric=NAME] [by=best|final] [out=FOLDER]", "rank and draw the runs of sweeps or folders",
        "lrkit.cli.compare.run_compare", paths=True,
        examples={
            "lrkit compare outputs/sweeps/2026-11-23_21-45-03": "the tables and figures of a sweep",
            "lrkit compare outputs/runs metric=val/accuracy by=final": "all runs, ranked by their final accuracy",
        },
        keys=(
            CommandKey("metric", "the metric that ranks; default: the monitored one", ("NAME",)),
            CommandKey("by", "the best value of a run (default), or its final one", ("best", "final")),
            CommandKey("out", "the folder of the results; default: the folder given", ("FOLDER",)),
        ),
        flags=_TRACEBACK,
    ),
    "board": Command(
        "FOLDER [port=6006]", "open TensorBoard on runs", "lrkit.cli.board.run_board", paths=True,
        examples={"lrkit board outputs": "all runs; the address is printed",
                  "lrkit board outputs port=0": "a free port"},
        keys=(CommandKey("port", "port on this machine; default: 6006; 0: a free one", ("PORT",)),), flags=_TRACEBACK,
    ),
    "help": Command(
        "[COMMAND | GROUP | GROUP.OPTION | KEY]", "explain a command, a group, an option or a key",
        "lrkit.cli.help.run_help",
        examples={
            "lrkit help schedule": "the options of a group",
            "lrkit help schedule.cosine": "an option and its keys",
            "lrkit help optimizer.lr": "a key: meaning, range and default in each option",
        },
        flags=_CONFIG_DIR,
    ),
    "doctor": Command(
        "[GROUP=OPTION ...] [GROUP.KEY=VALUE ...]", "check the installation: packages, device, precision, disk",
        "lrkit.cli.doctor.run_doctor", overrides=True,
        examples={
            "lrkit doctor": "one line a finding: ok, note or problem; exit code 1 if there is a problem",
            "lrkit doctor optimizer=adamw trainer.precision=bf16-mixed": "what a run with these words would use",
        },
        flags={**_CONFIG_DIR, **_TRUST, **_TRACEBACK},
    ),
    "completion": Command(
        "bash|zsh|fish", "print a script that completes commands, options and keys",
        "lrkit.cli.completion.run_completion",
        words=("bash", "zsh", "fish"),
        examples={
            'eval "$(lrkit completion bash)"': "for this shell; in ~/.bashrc: for every shell",
            'eval "$(lrkit completion zsh)"': "the same for zsh, in ~/.zshrc after compinit",
            "lrkit completion fish > ~/.config/fish/completions/lrkit.fish": "the same for fish",
        },
    ),
})  # fmt: skip

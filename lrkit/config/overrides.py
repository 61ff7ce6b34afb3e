"""The overrides of the command line: parsing, groups, and the folders that Hydra searches.

Where Hydra would refuse an override with a long message, lrkit refuses it first, in one line: the key, the received
value and the accepted values.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from lrkit.base.errors import ConfigError
from lrkit.config import trusted_targets, yaml_screening
from lrkit.config.hydra_form import quote_formula, with_added_keys
from lrkit.config.near_names import suggest_option
from lrkit.config.shipped_options import CONF_DIR, option_names, parse_shipped_yaml, read_shipped_file
from lrkit.planning import optimizer_tracks

__all__ = [
    "CONF_DIR",
    "check_group",
    "chosen_loggers",
    "default_choices",
    "group_names",
    "hydra_initialised",
    "is_group",
    "is_paired",
    "leaf_paths",
    "list_options",
    "named_classes",
    "parse_overrides",
    "searching_folder",
    "trusted_names",
    "with_added_tracks",
]  # fmt: skip

#: Makes Hydra 1.3 behave as 1.3, and not as an earlier release. Later releases refuse this argument.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
#: Groups from which several options can be chosen: each option adds objects by their names.
LISTED = ("callbacks", "logger")


class _OwnFiles(FileConfigSource):
    """The files in ``--config-dir``. Each is checked before Hydra reads it; files outside of the folder are refused."""

    @staticmethod
    def scheme() -> str:
        return "lrkit-own"

    def is_group(self, config_path: str) -> bool:
        self._resolve_within(config_path)
        return bool(super().is_group(config_path))

    def is_config(self, config_path: str) -> bool:
        self._resolve_within(config_path)
        return bool(super().is_config(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._resolve_within(self._normalize_file_name(config_path))
        if "hydra" in Path(config_path).with_suffix("").parts:  # Hydra would give it the package hydra
            raise ConfigError(str(file), "must not configure Hydra: only the command line may")
        text = yaml_screening.read_screened(file)
        header = self._get_header_dict(text)
        yaml_screening.check_package_header(file, header.get("package"))
        return ConfigResult(self.provider, self.full_path(), OmegaConf.load(io.StringIO(text)), header)

    def _resolve_within(self, config_path: str) -> Path:
        path = Path(config_path)
        if (
            path.is_absolute() or ".." in path.parts
        ):  # otherwise Hydra would find the file by lrkit's folder, and read it unchecked
            raise ConfigError("--config-dir", "must contain every file that its files name; it lacks", config_path)
        return Path(self.path) / path


class _ShippedFiles(FileConfigSource):
    """lrkit's own files, each parsed once in a process: parsing takes a third of the time of composing a config."""

    @staticmethod
    def scheme() -> str:
        return "lrkit-shipped"

    def load_config(self, config_path: str) -> ConfigResult:
        content, header = _parse_shipped_file(Path(self.path) / self._normalize_file_name(config_path))
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create(content), dict(header))


@cache
def _parse_shipped_file(file: Path) -> tuple[Any, Mapping[str, str | None]]:
    text = file.read_text(encoding="utf-8")
    return parse_shipped_yaml(text), ConfigSource._get_header_dict(text)


class _OwnFolder(SearchPathPlugin):
    """A plugin by which Hydra searches the user's folder before lrkit's."""

    path: ClassVar[Path | None] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for element in search_path.get_path():
            if element.path in (str(CONF_DIR), f"file://{CONF_DIR}"):
                element.path = f"{_ShippedFiles.scheme()}://{CONF_DIR}"
        if self.path is not None:
            search_path.prepend("own", f"{_OwnFiles.scheme()}://{self.path}", anchor="main")


@contextmanager
def searching_folder(config_dir: str | None) -> Iterator[None]:
    """Within the context, an option in ``config_dir`` replaces lrkit's option of the same name."""
    for plugin in (_OwnFolder, _OwnFiles, _ShippedFiles):
        Plugins.instance().register(plugin)
    before = _OwnFolder.path
    _OwnFolder.path = Path(config_dir).resolve() if config_dir else None
    try:
        yield
    finally:
        _OwnFolder.path = before


@contextmanager
def hydra_initialised(config_dir: str | None = None) -> Iterator[None]:
    """Set up Hydra's global state for composing, and restore it afterwards."""
    saved = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with searching_folder(config_dir), initialize_config_dir(str(CONF_DIR), **VERSION_BASE):
            yield
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = saved


@cache
def default_choices() -> Mapping[str, str]:
    """Return the default option of each group, without groups that are mounted at another key."""
    pairs = [
        pair
        for entry in read_shipped_file("train.yaml")["defaults"]
        if isinstance(entry, Mapping)
        for pair in entry.items()
    ]
    own = [(str(group), str(option)) for group, option in pairs if " " not in str(group) and "@" not in str(group)]
    return dict(own)


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides: each must be ``key=value``, and no key may occur twice.

    >>> parse_overrides(["optimizer.lr"])  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: optimizer.lr has no value: write optimizer.lr=...
    """
    parsed: list[Override] = []
    seen: dict[str, str] = {}
    for text in map(quote_formula, overrides):
        key, equals, value = text.partition("=")
        if not key.strip().lstrip("+~"):
            raise ConfigError("an override", "must be key=value", text)
        if not equals and not text.startswith("~"):
            raise ConfigError(text, f"has no value: write {text}=...")
        if equals and not value:
            raise ConfigError(key, f"has no value: write {key}=...")
        if is_paired(text):
            raise ConfigError(key, f"takes paired values in a sweep only: lrkit train -m '{text}'")
        if key != key.strip() or value.startswith(" "):
            raise ConfigError(key.strip(), f"must be written without spaces: {key.strip()}={value.strip()}", text)
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            must = "cannot be read: put quotes around a value with special characters, such as pattern: '^head'"
            if not set(value) & set("'\"[]{}()\\"):  # one text, such as a path; the shell takes the outer quotes
                must = f"""cannot be read: write "{key}='{value}'", with both kinds of quotes"""
            raise ConfigError(key, must, value) from None
        except ValueError:  # Python's limit for the digits of a number
            raise ConfigError(key, "must not have a number of thousands of digits", value) from None
        name = override.key_or_group + (f"@{override.package}" if override.package else "")
        if name == "hydra.searchpath":  # files there would not be checked
            raise ConfigError(name, "is not accepted: use --config-dir for the folder of your own configs")
        if name in seen:
            raise ConfigError(name, f"is given twice: {seen[name]} and {text}")
        seen[name] = text
        parsed.append(override)
    return parsed


def is_paired(text: str) -> bool:
    """Return whether an override has several keys with paired values, see ``lrkit.config.sweep_values``.

    >>> is_paired("optimizer.lr,data.batch_size=(0.1,64),(0.2,128)"), is_paired("seed=1,2")
    (True, False)
    """
    key, equals, _ = text.partition("=")
    return bool(equals) and "," in key


def named_classes(parsed: Iterable[Override]) -> list[str]:
    """Return the classes that overrides name. They are trusted, because the user typed them.

    >>> words = ["model._target_=mycode.Net", "+callbacks.early={_target_: mycode.Early, patience: 3}"]
    >>> named_classes(parse_overrides(words))
    ['mycode.Net', 'mycode.Early']
    """
    named = [
        target
        for override in parsed
        if override.type != OverrideType.DEL
        for _, target in trusted_targets.find_targets({override.key_or_group.rpartition(".")[2]: override.value()})
    ]
    return [target for target in named if isinstance(target, str)]


def chosen_loggers(parsed: Iterable[Override]) -> list[str]:
    """Return the classes of the loggers that overrides choose by name.

    >>> chosen_loggers(parse_overrides(["logger=[csv,wandb]"]))
    ['pytorch_lightning.loggers.CSVLogger', 'pytorch_lightning.loggers.WandbLogger']
    """
    chosen = [override.value() for override in parsed if override.key_or_group == "logger"]
    names = [name for value in chosen for name in (value if isinstance(value, list) else [value])]
    nodes = [read_shipped_file(f"logger/{name}.yaml") for name in names if name in option_names("logger")]
    return [node[trusted_targets.TARGET] for file in nodes for node in file.values() if isinstance(node, Mapping)]


def trusted_names(parsed: Sequence[Override], more: Sequence[str] = ()) -> list[str]:
    """Return the names that a config may use beside lrkit's own: ``trust=[...]``, ``more``, ``named_classes`` and
    ``chosen_loggers``.
    """
    said: list[str] = []
    for override in parsed:
        if override.key_or_group == "trust":
            said = trusted_targets.check_trust(override.value())
        elif override.key_or_group.partition(".")[0] == "trust":
            raise ConfigError(override.key_or_group, "is not a key: write trust=[mycode]")
    return list(
        dict.fromkeys([*said, *trusted_targets.check_trust(more), *named_classes(parsed), *chosen_loggers(parsed)])
    )


def with_added_tracks(overrides: Iterable[str]) -> list[str]:
    """Return overrides in Hydra's form: as in ``hydra_form``, and with ``+`` before the keys of ``optimizers``.

    >>> with_added_tracks(["optimizers.actor.every=2", "optimizer@optimizers.actor.optimizer=adam", "seed=1"])
    ['++optimizers.actor.every=2', '+optimizer@optimizers.actor.optimizer=adam', 'seed=1']
    """
    return [f"{_find_addition_prefix(text)}{text}" for text in with_added_keys(map(quote_formula, overrides))]


def _find_addition_prefix(text: str) -> str:
    key = text.partition("=")[0]
    if key.partition(".")[0].lstrip("+") == optimizer_tracks.KEY:
        return "++"[key.startswith("+") + key.startswith("++") :]
    return "+" if f"@{optimizer_tracks.KEY}." in key and key[0] not in "+~" else ""


def check_group(override: Override) -> None:
    """Refuse several values for a key, and an unknown option of a group. Hydra must be initialised."""
    group = override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(group, f"takes one value; to sweep: lrkit train -m {override.input_line}")
    if group not in group_names():
        return
    options, value = list_options(group), override.value()
    if override.package is not None:  # mounted at another key, which may be missing
        group += f"@{override.package}"
        if override.type == OverrideType.DEL:
            return
        if value is None:
            raise ConfigError(group, "must not be null: leave it out for no option")
    if override.type == OverrideType.DEL or value is None:
        instead = "constant" if group == "schedule" else default_choices().get(group, options[0])
        what = "removed" if override.type == OverrideType.DEL else "null"
        raise ConfigError(group, f"cannot be {what}: use {group}={instead}")
    if isinstance(value, list) and group not in LISTED:
        names = ",".join(str(v) for v in value)
        raise ConfigError(group, f"takes one option; to sweep: -m {group}={names}", value)
    if isinstance(value, list) and (not value or len({str(each) for each in value}) < len(value) > 1):
        raise ConfigError(group, f"must be a list of different options; {group}=none chooses none of them", value)
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, str) or each not in options:
            raise ConfigError(
                group, f"has no option {str(each)!r}. {suggest_option(override.key_or_group, str(each), options)}"
            )
    if override.package is None and (override.type == OverrideType.CHANGE) != (group in default_choices()):
        said = (
            "is chosen already: write {0}, without the +" if group in default_choices() else "must be added: write +{0}"
        )
        raise ConfigError(group, said.format(f"{group}={value}"))


def group_names() -> set[str]:
    groups = _list_folder("", ObjectType.GROUP)
    return {group for group in groups if not group.startswith("_") and group != "hydra"}


def is_group(name: str) -> bool:
    """Return whether ``name`` is a group of options. Hydra must be initialised."""
    return "." not in name and bool(list_options(name))


def list_options(group: str) -> list[str]:
    """Return the options of a group. Hydra must be initialised."""
    return sorted(_list_folder(group, ObjectType.CONFIG))


def _list_folder(path: str, kind: ObjectType) -> set[str]:
    """Return the groups or options in a folder. Hydra's ``get_group_options`` would copy its sources for each call."""
    sources = GlobalHydra.instance().config_loader().get_sources()
    return {name for source in sources if source.is_group(path) for name in source.list(path, kind)}


def leaf_paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of all values."""
    if not isinstance(node, Mapping) or not node:
        yield prefix
        return
    for key, value in node.items():
        yield from leaf_paths(value, f"{prefix}.{key}" if prefix else str(key))

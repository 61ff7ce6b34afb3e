"""`lrkit help`, and `--help` of each command: pages that are read from the commands and from the comments of the YAML
files. They are computed without Hydra and torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lrkit.base.errors import ConfigError
from lrkit.base.escaping import escape_terminal
from lrkit.base.exit_codes import OK
from lrkit.base.launcher_environment import global_rank
from lrkit.base.terminal_width import find_width, wrap_command, wrap_text
from lrkit.base.text_table import format_table
from lrkit.cli.arguments import refuse_flags, split_arguments
from lrkit.cli.commands import COMMANDS, Command
from lrkit.config.documented_options import DocumentedGroup, DocumentedKey, DocumentedOption, DocumentedOptions

__all__ = ["print_command_help", "print_overview", "run_help"]

_WIDEST = 120  # columns beyond which a line is hard to read


def print_overview() -> None:
    """Print the page of ``lrkit --help``: the commands."""
    rows = [(f"lrkit {name}", command.sentence) for name, command in COMMANDS.items()]
    _print_page([
        "lrkit: declarative learning rates for PyTorch Lightning", "",
        *_format_rows(rows), "",
        "An override is GROUP=OPTION or KEY=VALUE:",
        "  lrkit train schedule=cosine warmup=linear optimizer.lr=0.05",
        *_format_rows([
            ("lrkit COMMAND --help", "its groups, keys and flags, and examples"),
            ("lrkit --version", "the version; -V is the same"),
            ("--traceback", "with any command: the Python traceback of an error"),
        ]),
    ])  # fmt: skip


def run_help(words: list[str]) -> int:
    """Print the page of each name: a command, a group, an option or a key."""
    flags, names, config_dir = split_arguments(words)
    refuse_flags("help", flags)
    options = DocumentedOptions(config_dir)
    pages = [list(_find_page(name, options)) for name in names]
    if global_rank() > 0:
        return OK
    if not pages:
        print_overview()
    for i, page in enumerate(pages):
        _print_page(["", *page] if i else page)
    return OK


def print_command_help(name: str, words: Sequence[str]) -> int:
    """Print the page of a command. Overrides beside ``--help`` are checked, and the page marks their options."""
    command = COMMANDS[name]
    others = [word for word in words if word not in ("--help", "-h")]
    chosen: list[str] = []
    config_dir = None
    if command.overrides:
        _, chosen, config_dir = split_arguments(others)
        chosen = [word for word in chosen if word.partition("=")[0] not in {key.name for key in command.keys}]
        if chosen or config_dir:
            _check_overrides(chosen, config_dir)
    if global_rank() == 0:
        _print_page(_command_page(name, command, DocumentedOptions(config_dir), chosen))
    return OK


def _check_overrides(overrides: Sequence[str], config_dir: str | None) -> None:
    """Refuse wrong overrides, and a folder of configs with a file that must not be read."""
    from lrkit.config.compose import compose, screen_files
    from lrkit.config.sweep_values import expand_jobs

    if config_dir:
        screen_files(overrides, config_dir)
    for job in expand_jobs(overrides, config_dir)[:1]:
        compose(job, config_dir)


def _print_page(lines: Iterable[str]) -> None:
    """Print lines in the width of the terminal. A command line, which begins so, is broken between its words."""
    width = _page_width()
    for line in lines:
        if line.startswith("  lrkit "):
            print(wrap_command(line.strip(), width))
        else:
            print(wrap_text(line, width, 0 if line.startswith(" ") else 2))


def _page_width() -> int | None:
    width = find_width()
    return None if width is None else min(width, _WIDEST)


def _format_rows(rows: Sequence[Sequence[str]], names: Sequence[str] = (), indent: str = "  ") -> list[str]:
    """Rows of words as lines with aligned columns, each indented."""
    if not rows:
        return []
    width = _page_width()
    clean = [[escape_terminal(cell) for cell in row] for row in rows]
    titles = names or [""] * len(rows[0])
    table = format_table(titles, clean, None if width is None else width - len(indent), {*titles}).split("\n")
    return [f"{indent}{line}".rstrip() for line in (table if names else table[1:])]


# --- the page of a command ------------------------------------------------------------------------


def _command_page(name: str, command: Command, options: DocumentedOptions, chosen: Sequence[str]) -> Iterator[str]:
    yield f"lrkit {name} {command.usage}"
    yield f"  {command.sentence}"
    if command.overrides:
        yield from ("", "Groups: GROUP=OPTION; * is the one that is chosen")
        yield from _format_rows([
            (group.word, _mark_options(group, options, chosen))
            for group in options.groups if "@" not in group.name
        ])  # fmt: skip
        mounted = [group for group in options.groups if "@" in group.name]
        yield from _format_rows([(f"{group.name}=OPTION", group.comment) for group in mounted])
        yield from ("", "Keys: GROUP.KEY=VALUE, such as optimizer.lr=0.05, and")
        sections = {section.path for section in options.sections}
        plain = [key.path for key in options.settings if key.path.partition(".")[0] not in sections and key.default]
        yield from _format_rows([
            ("", " ".join(path for path in plain if path != "coschedule")),
            *((f"{section.path}.", " ".join(key.name for key in _keys_in(options.settings, section.path)))
              for section in options.sections),
        ])  # fmt: skip
        yield from _format_rows([
            ("lrkit help schedule", "the options of a group"), ("lrkit help schedule.cosine", "an option and its keys"),
            ("lrkit help optimizer.lr", "a key: meaning, unit, range, default, source"),
        ], indent="")  # fmt: skip
    keys = [(key.usage, key.meaning) for key in command.keys]
    if command.section:
        keys += [(f"{key.path}={key.default}", key.comment) for key in _keys_in(options.settings, command.section)]
    if keys:
        yield from ("", f"Keys of lrkit {name}")
        yield from _format_rows(keys)
    if command.flags:
        yield from ("", "Flags")
        yield from _format_rows([*command.flags.items()])
    yield from ("", "Examples")
    for example, meaning in command.examples.items():
        yield from (f"  {example}", f"    {meaning}")


def _mark_options(group: DocumentedGroup, options: DocumentedOptions, words: Sequence[str]) -> str:
    marked = group.chosen(words)
    return " ".join(f"{name}*" if name in marked else name for name in options.names(group.name))


def _keys_in(keys: Sequence[DocumentedKey], section: str) -> list[DocumentedKey]:
    return [key for key in keys if key.path.startswith(f"{section}.")]


# --- the pages of groups, options and keys --------------------------------------------------------


def _find_page(name: str, options: DocumentedOptions) -> Iterator[str]:
    """The page of a name.

    Raises:
        ConfigError: there is none; with the nearest names.
    """
    if name in COMMANDS:
        yield from _command_page(name, COMMANDS[name], options, ())
        return
    name = name.lstrip("+~")
    found = False
    for page in (_group_page(name, options), _option_page(name, options), _key_page(name, options)):
        if page:
            yield from ["", *page] if found else page
            found = True
    if not found:
        raise ConfigError("lrkit help", f"has no page {name!r}. {_suggest_page(name, options)}")


def _group_page(name: str, options: DocumentedOptions) -> list[str]:
    group = options.group(name)
    if group is None:
        return []
    rows = [
        (f"{each}*" if each == group.default else each, options.comment(name, each)) for each in options.names(name)
    ]
    page = [f"{group.word}=OPTION", *_indent(group.comment), ""]
    page += _format_rows(rows, ("option", "meaning"), indent="")
    readable = [options.read(name, each) for each in options.names(name)]
    first = next((option.name for option in readable if option.keys and option.name == group.default),
                 next((option.name for option in readable if option.keys), readable[0].name))  # fmt: skip
    shared = next((option.shared for option in readable if option.shared), ())
    if shared:
        page += ["", f"Keys of every {name.partition('@')[0]}", *_format_keys(shared)]
    default = "* is the default. " if group.default else ""
    return [*page, "", f"{default}An option and its keys: lrkit help {name.partition('@')[0]}.{first}"]


def _option_page(name: str, options: DocumentedOptions) -> list[str]:
    """The page of ``schedule.cosine``, also written ``schedule=cosine``."""
    group_name, _, option_name = name.replace("=", ".", 1).partition(".")
    if "=" in name and "@" in name:  # schedule@coschedule.momentum=cosine
        group_name, _, option_name = name.partition("=")
    group = options.group(group_name)
    if group is None or option_name not in options.names(group_name):
        return []
    option = options.read(group_name, option_name)
    page = [f"{group.word}={option_name}", *_indent(option.comment)]
    about = [("class", option.target)] if option.target else []
    if option.choices:
        about.append(("chooses", " ".join(option.choices)))
    page += _format_rows(about)
    if option.keys:
        page += ["", *_format_keys(option.keys)]
    if option.shared:
        page += ["", f"Keys of every {option.group}", *_format_keys(option.shared)]
    return [*page, *_explain_durations([*option.keys, *option.shared], options)]


def _indent(comment: str) -> list[str]:
    return [f"  {escape_terminal(comment)}"] if comment else []


def _format_keys(keys: Sequence[DocumentedKey]) -> list[str]:
    if any(key.comment for key in keys):
        rows = [(key.path, key.default, key.comment) for key in keys]
        return _format_rows(rows, ("key", "default", "meaning"), indent="")
    return _format_rows([(key.path, key.default) for key in keys], ("key", "value"), indent="")


def _key_page(name: str, options: DocumentedOptions) -> list[str]:
    """The page of a key: of ``train.yaml``, or of the options of a group that have it."""
    settings = [key for key in options.settings if key.path == name]
    if settings:
        inner = _keys_in(options.settings, name)
        title = f"{name}.KEY=VALUE" if inner else f"{name}=VALUE"
        page = [title, *_indent(settings[0].comment), *([] if inner else [f"  default: {settings[0].default}"])]
        section = next((key for key in options.sections if name.startswith(f"{key.path}.")), None)
        if section is not None:
            page += _indent(f"{section.path}: {section.comment}")
        if inner:
            page += ["", *_format_keys(inner)]
        return [*page, *_explain_durations([*settings, *inner], options)]
    having = list(_options_with(name, options))
    if not having:
        return []
    variants: dict[tuple[str, str], list[str]] = {}
    for option, key in having:
        variants.setdefault((key.default, key.comment), []).append(option.name)
    group = options.group(having[0][0].group)
    default = group.default if group else ""
    rows = [
        (", ".join(f"{each}*" if each == default else each for each in names), *variant)
        for variant, names in variants.items()
    ]
    rows.sort(key=lambda row: "*" not in row[0])
    page = [f"{having[0][1].path}=VALUE", ""]
    page += _format_rows(rows, (f"{having[0][0].group}=", "default", "meaning"), indent="")
    return [*page, *_explain_durations([key for _, key in having], options)]


def _options_with(name: str, options: DocumentedOptions) -> Iterator[tuple[DocumentedOption, DocumentedKey]]:
    """The options that have a key, and their keys; ``schedule.cosine.end`` asks for one option."""
    section, _, rest = name.partition(".")
    mounted = [each.name for each in options.groups if name.startswith(f"{each.name.partition('@')[2]}.")]
    group = next(iter(mounted), section)
    if options.group(group) is None:
        return
    found = [
        (option, key)
        for option in (options.read(group, each) for each in options.names(group))
        for key in (*option.keys, *option.shared)
        if key.path == name
    ]
    yield from found
    option_name, _, inner = rest.partition(".")
    if not found and inner and option_name in options.names(group):
        option = options.read(group, option_name)
        yield from ((option, key) for key in (*option.keys, *option.shared) if key.path == f"{section}.{inner}")


def _explain_durations(keys: Sequence[DocumentedKey], options: DocumentedOptions) -> list[str]:
    """The sentence of ``train.yaml`` on durations, if a key is one."""
    _, found, sentence = options.header.partition("A duration is")
    return ["", f"{found}{sentence}"] if found and any("duration" in key.comment for key in keys) else []


def _suggest_page(name: str, options: DocumentedOptions) -> str:
    from lrkit.config.near_names import suggest_page

    groups = [group for group in options.groups if "@" not in group.name]
    names = [*COMMANDS, *(group.name for group in groups), *(key.path for key in options.settings)]
    for group in groups:
        for each in options.names(group.name):
            option = options.read(group.name, each)
            names += [f"{group.name}.{each}", *(key.path for key in (*option.keys, *option.shared))]
    return suggest_page(name, list(dict.fromkeys(names))) or "lrkit help: the commands; lrkit train --help: the groups"

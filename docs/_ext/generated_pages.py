"""The pages that are read from the code: schedules, options, exit codes, public names, other libraries.

They are written into docs/generated before each build, so that an option or a name that is added is on the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent, indent
from types import ModuleType
from typing import Any

from peers_page import peers_page

import lrkit
from lrkit.base import exit_codes
from lrkit.config.compose import CONF_DIR, compose, plan
from lrkit.config.shipped_options import SHARED
from lrkit.planning.picture import draw_picture
from lrkit.schedules import shapes, warmup

__all__ = ["api_page", "exit_codes_page", "gallery_pages", "options_page", "setup", "write_pages"]

#: Each schedule is drawn by this command, after a warmup, in a run of round numbers.
DRAWN = ["warmup=linear", "horizon.steps=1000", "horizon.steps_per_epoch=50"]

Pages = dict[str, str]


def gallery_pages(conf: Path = CONF_DIR) -> Pages:
    """A page of all pictures, and one for each schedule: its picture, formula, YAML, and the command that draws it."""
    names = sorted(path.stem for path in _schedule_files(conf))
    pages = {f"schedules/{name}.md": _schedule_page(name, (conf / "schedule" / f"{name}.yaml")) for name in names}
    cards = "\n".join(
        f'<a class="card" href="schedules/{name}.html"><img src="../_images/{name}.svg" alt=""><span>{name}</span></a>'
        for name in names
    )
    pages["schedules.md"] = f"""# Schedules

{len(names)} shapes, each after a linear warmup. Choose one by `schedule=NAME`; the keys of each are on its page.

```{{raw}} html
<div class="gallery">
{cards}
</div>
```

## Options of every schedule

`lrkit show schedule=step schedule.scale=0.5 schedule.floor=0.1`, with any schedule:

```yaml
{(CONF_DIR / SHARED / "schedule.yaml").read_text().strip()}
```

`update_every=1ep` is the learning rate of a program that calls its scheduler once an epoch. `skip` begins in the middle
of a shape. A class of your own has these options too, if it defines `value(s, n)`.

## A shape of your own

```shell
lrkit show schedule=formula 'schedule.formula=0.5*(1+cos(pi*u))'
lrkit show schedule=table 'schedule.table=[[0,1.0],[50%,0.1],[1000,0.01]]'
lrkit show schedule=table schedule.table=rates.csv schedule.interpolate=previous
lrkit show schedule=product 'schedule.factors=[cosine,{{name: step, every: 10%, gamma: 0.9}}]'
lrkit show schedule=piecewise 'schedule.phases=[{{name: linear, start: 0.1, end: 1, length: 10%}},cosine]'
lrkit show schedule=custom schedule._target_=mycode.MySchedule schedule.my_key=2
```

lrkit computes a formula itself; no part of it is executed as Python. The plan has the rows of a table, not the path of
the file. A table of learning rates, such as the output of `lrkit show format=csv`, needs `schedule.normalise=peak`. A
schedule inside another one is the name of an option, or `name` with the keys to set. A class of your own is a subclass
of `lrkit.schedules.Schedule`: it keeps the keys of the option that it has, and takes its own keys.

`warmup=formula` and `cooldown=formula` take a formula too. A warmup without `end` must arrive at 1, the schedule's
first value; a cooldown without `start` must begin at 1, the last value of the schedule.

## How a warmup meets the schedule

`lrkit show warmup=linear warmup.overlap=join`:

```
{_table_of(warmup)}
```

`s` counts the steps from the beginning of the run, `w` is the length of the warmup, `start` is `warmup.start`; above 1
the warmup falls. With an overlap the places of a schedule (`milestones`, `every`, `length`) count from the beginning of
the run, as in detectron2 (`join`), Composer and timm (`peak`) and MMEngine (`multiply`).

```{{toctree}}
:hidden:

{chr(10).join(f"schedules/{name}" for name in names)}
```
"""
    return pages


def _schedule_files(conf: Path) -> list[Path]:
    """The options of the group schedule, but for that of a class of the user's."""
    return [path for path in (conf / "schedule").glob("*.yaml") if path.stem != "custom"]


def _table_of(module: ModuleType) -> str:
    """The indented table of a module's docstring."""
    found = re.search(r"\n\n((?:    .*\n)+)", module.__doc__ or "")
    assert found
    return dedent(found[1]).strip()


def _schedule_page(name: str, yaml: Path) -> str:
    kind = getattr(shapes, _class_of(yaml))
    doc = dedent("    " + (kind.__doc__ or ""))
    summary, _, rest = doc.partition("\n\n")
    formula = re.match(r"((?:    .*\n|\n)+)", rest)
    formulas = dedent(formula[1]).strip() if formula else ""
    reference = re.search(r"(?:^|\n)((?:Reference|Equals).*?)(?:\n\n|\Z)", rest, re.S)
    parts = [
        f"# {name}",
        _as_markdown(summary),
        f"![The learning rate over the optimizer steps: {name}]({name}.svg)",
        f"```\n{formulas}\n```\n\n`s` is the step in a phase of `n` steps, `u = s / n`." if formulas else "",
        _as_markdown(reference[1]) if reference else "",
        "## In YAML",
        f"```yaml\n{yaml.read_text().strip()}\n```",
        f"Each key is an override of the command: `schedule={name} schedule.KEY=VALUE`. Every schedule also has the "
        "[options of every schedule](../schedules.md#options-of-every-schedule).",
        "## The command that draws it",
        f"```shell\nlrkit show schedule={name} \\\n    {' '.join(DRAWN)} format=png\n```",
        f"In Python: {{py:class}}`lrkit.schedules.{kind.__name__}`.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _class_of(yaml: Path) -> str:
    found = re.search(r"^ *_target_: lrkit\.schedules\.(\w+)", yaml.read_text(), re.M)
    assert found, f"{yaml} names no class of lrkit.schedules"
    return found[1]


def _as_markdown(text: str) -> str:
    return text.replace("``", "`")


def draw_schedules(folder: Path, conf: Path = CONF_DIR) -> None:
    """Draw each schedule as the command on its page does, where its picture is older than what it is drawn from."""
    sources = [*Path(shapes.__file__).parent.glob("*.py"), Path(__file__)]
    for yaml in _schedule_files(conf):
        picture = folder / f"{yaml.stem}.svg"
        newest = max(path.stat().st_mtime for path in [*sources, yaml])
        if not picture.exists() or picture.stat().st_mtime < newest:
            draw_picture({yaml.stem: plan(compose([f"schedule={yaml.stem}", *DRAWN]))}, picture)


def options_page(conf: Path = CONF_DIR) -> Pages:
    """The groups of ``conf/`` and the options of each, with the comment and the keys of their files."""
    parts = [
        "# Options",
        "`lrkit train GROUP=OPTION GROUP.KEY=VALUE`: the groups, in the order of `conf/train.yaml`, their options, and "
        "the keys of each with its default. `lrkit show` accepts the same words.",
        "## train.yaml",
        "The defaults, and the keys that belong to no group.",
        f"```yaml\n{(conf / 'train.yaml').read_text().strip()}\n```",
    ]
    for group in _groups(conf):
        parts.append(f"## {group}")
        if (shared := conf / SHARED / f"{group}.yaml").is_file():
            parts += [f"### every {group}", f"```yaml\n{shared.read_text().strip()}\n```"]
        for file in sorted((conf / group).glob("*.yaml")):
            word = f"+{group}" if group in ("experiment", "sweep", "launcher") else group
            parts += [f"### {word}={file.stem}", f"```yaml\n{file.read_text().strip()}\n```"]
    return {"options.md": "\n\n".join(parts) + "\n"}


def _groups(conf: Path) -> list[str]:
    """The folders of ``conf/``: those of the defaults list first, in its order."""
    listed = re.findall(r"^  - (\w+):", (conf / "train.yaml").read_text(), re.M)
    folders = sorted(path.name for path in conf.iterdir() if path.name != SHARED and any(path.glob("*.yaml")))
    return [*(group for group in listed if group in folders), *(group for group in folders if group not in listed)]


def exit_codes_page() -> Pages:
    """How a command ends, from the constants of ``lrkit.base.exit_codes`` and the comments above them."""
    source = Path(exit_codes.__file__).read_text()
    rows = [
        f"| {value} | {comment.removeprefix('#:').strip() if comment else 'Done.'} |"
        for comment, value in re.findall(r"^(#:.*\n)?[A-Z]+ = (\d+)$", source, re.M)
    ]
    rows.append(
        f"| 128 + n | Ended by signal n, by the convention of shells: {exit_codes.signal_exit_code(15)} for SIGTERM. |"
    )
    return {"exit_codes.md": "# Exit codes\n\n| code | meaning |\n|--:|---|\n" + "\n".join(rows) + "\n"}


def api_page(names: Iterable[str] = lrkit.__all__) -> Pages:
    """The public names, from ``lrkit.__all__``: functions, classes with their methods, and the schedules."""
    return {"api.md": "# Python\n\n```{eval-rst}\n.. py:module:: lrkit\n\n" + "\n".join(_directives(names)) + "```\n"}


def _directives(names: Iterable[str]) -> Iterator[str]:
    public = {name: getattr(lrkit, name) for name in names}
    functions = [name for name, value in public.items() if not isinstance(value, type) and callable(value)]
    classes = [name for name, value in public.items() if isinstance(value, type)]
    modules = [name for name, value in public.items() if not callable(value)]
    yield "Functions\n---------\n"
    yield from (f".. autofunction:: lrkit.{name}\n" for name in sorted(functions))
    yield "Classes\n-------\n"
    for name in sorted(classes):
        members = "" if issubclass(public[name], Exception) else "   :members:\n"
        yield f".. autoclass:: lrkit.{name}\n{members}"
    for name in modules:
        yield f"lrkit.{name}\n{'-' * (len(name) + 6)}\n"
        yield f".. py:module:: lrkit.{name}\n"
        yield indent((public[name].__doc__ or "").partition("\n\n")[0], "") + "\n"
        yield from (f".. autoclass:: lrkit.{name}.{each}\n" for each in public[name].__all__)


def write_pages(folder: Path) -> None:
    """Write every page that has changed, and remove those of options that are gone."""
    pages = gallery_pages() | options_page() | exit_codes_page() | api_page() | peers_page()
    for old in [*folder.glob("*.md"), *folder.glob("*/*.md")]:
        if str(old.relative_to(folder)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    draw_schedules(folder / "schedules")


def _on_build(app: Any) -> None:
    write_pages(Path(app.srcdir) / "generated")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", _on_build)
    return {"parallel_read_safe": True}

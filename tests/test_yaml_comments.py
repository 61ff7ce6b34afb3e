"""Each key of ``conf/`` has a comment, and a range that a comment states is the range that lrkit accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrkit.base.errors import ConfigError
from lrkit.config import instantiate, optimizer_options
from lrkit.config.shipped_options import CONF_DIR, SHARED, read_option
from lrkit.schedules.curve import Curve
from lrkit.schedules.horizon import Horizon
from lrkit.schedules.shapes import Constant

#: Groups whose files define keys. Experiments, sweeps and launchers set keys of others.
GROUPS = ("optimizer", "schedule", "warmup", "cooldown", "plateau", "guard", "batch_scaling", "weight_decay_rule",
          "param_groups", "data",
          "model", "trainer", "callbacks", "logger", SHARED)  # fmt: skip
FILES = [path for group in GROUPS for path in sorted((CONF_DIR / group).glob("*.yaml"))]
#: A range as comments write it, and values just outside of it.
OUTSIDE = {
    "whole number >= 0": (-1, 0.5),
    "whole number >= 1": (0, 1.5),
    "whole number >= 20": (19, 20.5),
    "in [0, 1)": (-0.1, 1.0),
    "in (0, 1)": (0.0, 1.0),
    "in (0, 1]": (0.0, 1.1),
    "in [0, 1]": (-0.1, 1.1),
    ">= 0": (-0.1,),
    ">= 1": (0.9,),
    "> 0": (0.0,),
    "> 1": (1.0, 0.5),
    "<= 0": (0.1,),
}


def comments(path: Path) -> dict[str, str]:
    """The comment of each key of a file."""
    lines = path.read_text().splitlines()
    return {found[1]: found[2] for line in lines if (found := re.match(r"^ *(\w+):(?:.*?\s# (.*))?$", line))}


@pytest.mark.parametrize("path", [*FILES, CONF_DIR / "train.yaml"], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_key_has_a_comment(path: Path) -> None:
    without = {key for key, comment in comments(path).items() if comment is None}
    # Keys of Hydra's, and those that only hold others.
    assert without <= {"_target_", "defaults", "schedule", "job", "sweep", "help"}


def test_a_class_of_the_users_own_has_a_comment() -> None:
    for path in FILES:
        assert not re.search(r"_target_: \?\?\?$", path.read_text(), re.M), path


def stated() -> Iterator[tuple[str, str, str]]:
    """Group/option, key and range of each comment that states one, where an object checks it."""
    for path in FILES:
        option = f"{path.parent.name}/{path.stem}"
        if path.parent.name == SHARED:  # tried on one option of the group
            option = f"{path.stem}/linear"
        elif path.parent.name not in ("optimizer", "schedule", "warmup", "cooldown", "plateau", "guard"):
            continue
        for key, comment in comments(path).items():
            limits = next((limits for limits in OUTSIDE if limits in (comment or "")), None)
            if limits is not None and key not in ("lr", "length", "_target_"):
                yield option, key, limits


@pytest.mark.parametrize(("option", "key", "limits"), list(stated()))
def test_a_stated_range_is_the_range_that_is_accepted(option: str, key: str, limits: str) -> None:
    group, _, name = option.partition("/")
    node = read_option(group, name, group)
    for value in OUTSIDE[limits]:
        wrong = [value, *node[key][1:]] if isinstance(node[key], list) else value
        with pytest.raises(ConfigError, match=key):
            if group == "optimizer":
                optimizer_options.check({**node, key: wrong})
                continue
            built = instantiate.build({**node, key: wrong}, group)
            if group == "warmup":
                Curve.build(Constant(), Horizon(100), warmup=built)


def test_a_sweep_or_option_that_a_comment_names_exists() -> None:
    for path in CONF_DIR.rglob("*.yaml"):
        text = "\n".join(re.findall(r"# (.*)", path.read_text()))
        for group, option in re.findall(r"\+?\b(sweep|launcher|schedule|optimizer|guard|warmup|cooldown)=(\w+)", text):
            assert (CONF_DIR / group / f"{option}.yaml").is_file(), f"{path}: {group}={option}"

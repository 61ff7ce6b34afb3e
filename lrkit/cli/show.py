"""`lrkit show`: the plan and its curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lrkit.base.exit_codes import OK
from lrkit.base.terminal_width import print_line
from lrkit.cli.arguments import refuse_flags, split_arguments, split_format
from lrkit.cli.output_folders import find_unused_path
from lrkit.cli.resumed_run import load_resumed_config

__all__ = ["make_swept_label", "run_show"]


def run_show(argv: list[str]) -> int:
    from lrkit.config import compose as configs
    from lrkit.config.sweep_values import expand_jobs
    from lrkit.planning import render
    from lrkit.planning.plan_page import print_plan

    flags, overrides, config_dir = split_arguments(argv)
    refuse_flags("show", [flag for flag in flags if flag not in ("-m", "--multirun")])
    form, overrides = split_format("show", overrides)
    plans = {}
    if not flags:
        load_resumed_config(overrides)
    for chosen in expand_jobs(overrides, config_dir) if flags else [overrides]:
        swept = [o for o in chosen if o not in overrides]
        plans[make_swept_label(swept)] = configs.plan(configs.compose(chosen, config_dir))
    if form == "png":
        folder = Path("outputs") / "show"
        from lrkit.planning.picture import draw_picture

        path = draw_picture(plans, find_unused_path(folder, ".png"))
        print(path)
        return OK
    writers = {"csv": render.render_csv, "json": render.render_json}
    for label, plan in plans.items():
        if len(plans) > 1:
            print_line(f"# {label}")
        if form == "text":
            print_plan(plan, curve=True)
        else:
            print(writers[form](plan), end="")
    return OK


def make_swept_label(swept: Sequence[str]) -> str:
    """Return the label of one of several plans: only the values if one key is swept."""
    return swept[0].partition("=")[2] if len(swept) == 1 else " ".join(swept)

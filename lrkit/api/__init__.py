"""The command's features as Python functions: for notebooks, scripts of plain Lightning and other Hydra apps."""

from lrkit.api.commands import compare, train
from lrkit.api.lightning_module import configure
from lrkit.api.mounted_config import from_config
from lrkit.api.plan_and_curve import curve, plan
from lrkit.api.range_test import find

__all__ = ["compare", "configure", "curve", "find", "from_config", "plan", "train"]

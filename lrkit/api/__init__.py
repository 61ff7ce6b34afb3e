"""The command's features as Python functions: for notebooks, scripts of plain Lightning and other Hydra apps."""

from lrkit.api.commands import compare, predict, train
from lrkit.api.lightning_module import configure
from lrkit.api.lr_search import find
from lrkit.api.mounted_config import from_config
from lrkit.api.plan_and_curve import curve, plan

__all__ = ["compare", "configure", "curve", "find", "from_config", "plan", "predict", "train"]

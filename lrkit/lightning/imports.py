"""All names that lrkit imports from Lightning, from the package that the process uses: see
``lrkit.base.lightning_package``.

No other file of lrkit imports Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lrkit.base.lightning_package import use_package

PACKAGE = use_package({})

if TYPE_CHECKING or PACKAGE == "pytorch_lightning":
    from lightning_fabric.plugins import TorchCheckpointIO
    from lightning_fabric.plugins.environments import (  # type: ignore[attr-defined]
        ClusterEnvironment,
        KubeflowEnvironment,
        LightningEnvironment,
        MPIEnvironment,
        SLURMEnvironment,
    )
    from lightning_fabric.utilities.exceptions import MisconfigurationException
    from pytorch_lightning import (  # type: ignore[attr-defined]
        Callback,
        LightningDataModule,
        LightningModule,
        Trainer,
        __version__,
        seed_everything,
    )
    from pytorch_lightning.accelerators import AcceleratorRegistry
    from pytorch_lightning.callbacks import (
        Checkpoint,
        EarlyStopping,
        LearningRateMonitor,
        ModelCheckpoint,
        ProgressBar,
        Timer,
    )
    from pytorch_lightning.loggers import Logger, TensorBoardLogger
    from pytorch_lightning.loggers.logger import DummyLogger
    from pytorch_lightning.profilers import PassThroughProfiler
    from pytorch_lightning.strategies import (
        DeepSpeedStrategy,
        FSDPStrategy,
        ModelParallelStrategy,
        Strategy,
        StrategyRegistry,
    )
    from pytorch_lightning.utilities.exceptions import SIGTERMException
    from pytorch_lightning.utilities.model_helpers import is_overridden
    from pytorch_lightning.utilities.rank_zero import rank_zero_info  # type: ignore[attr-defined]
    from pytorch_lightning.utilities.seed import isolate_rng
else:
    from lightning.fabric.plugins import TorchCheckpointIO
    from lightning.fabric.plugins.environments import (
        ClusterEnvironment,
        KubeflowEnvironment,
        LightningEnvironment,
        MPIEnvironment,
        SLURMEnvironment,
    )
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import (
        Callback,
        LightningDataModule,
        LightningModule,
        Trainer,
        __version__,
        seed_everything,
    )
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.callbacks import (
        Checkpoint,
        EarlyStopping,
        LearningRateMonitor,
        ModelCheckpoint,
        ProgressBar,
        Timer,
    )
    from lightning.pytorch.loggers import Logger, TensorBoardLogger
    from lightning.pytorch.loggers.logger import DummyLogger
    from lightning.pytorch.profilers import PassThroughProfiler
    from lightning.pytorch.strategies import (
        DeepSpeedStrategy,
        FSDPStrategy,
        ModelParallelStrategy,
        Strategy,
        StrategyRegistry,
    )
    from lightning.pytorch.utilities.exceptions import SIGTERMException
    from lightning.pytorch.utilities.model_helpers import is_overridden
    from lightning.pytorch.utilities.rank_zero import rank_zero_info
    from lightning.pytorch.utilities.seed import isolate_rng

__all__ = [
    "PACKAGE",
    "AcceleratorRegistry",
    "Callback",
    "Checkpoint",
    "ClusterEnvironment",
    "DeepSpeedStrategy",
    "DummyLogger",
    "EarlyStopping",
    "FSDPStrategy",
    "KubeflowEnvironment",
    "LearningRateMonitor",
    "LightningDataModule",
    "LightningEnvironment",
    "LightningModule",
    "Logger",
    "MPIEnvironment",
    "MisconfigurationException",
    "ModelCheckpoint",
    "ModelParallelStrategy",
    "PassThroughProfiler",
    "ProgressBar",
    "SIGTERMException",
    "SLURMEnvironment",
    "Strategy",
    "StrategyRegistry",
    "TensorBoardLogger",
    "Timer",
    "TorchCheckpointIO",
    "Trainer",
    "__version__",
    "is_overridden",
    "isolate_rng",
    "rank_zero_info",
    "seed_everything",
]

"""The datasets of other libraries that a config may choose by name.

The name can come from an untrusted config, and the files from an untrusted folder. Some classes of torchvision and some
readers of Hugging Face unpickle files, or unpack archives to any path that the archive names. A config may therefore
choose only from a list: the authors of lrkit have read the code of each entry, in the releases below, and it only
converts files to numbers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = ["FORMATS", "TORCHVISION", "check_hugging_face", "check_torchvision", "without_ghostscript"]

#: Classes of ``torchvision.datasets`` with images of one size and one class for each image. Their code was read in
#: 0.23.0 and 0.29.1: they open archives and pickles (CIFAR) only after a comparison of the MD5 with the library's own.
#: Left out: LSUN, which unpickles a cache; FGVCAircraft, which unpacks any archive; images of different sizes.
TORCHVISION = (
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "EuroSAT",
    "FER2013",
    "FakeData",
    "FashionMNIST",
    "ImageFolder",
    "KMNIST",
    "MNIST",
    "Omniglot",
    "PCAM",
    "QMNIST",
    "RenderedSST2",
    "SEMEION",
    "STL10",
    "SVHN",
    "USPS",
)

#: Readers of Hugging Face ``datasets``. Releases 4.0.0 and 5.2.0 were searched for code that unpickles, evaluates, or
#: imports by name. Left out: ``pandas``, which unpickled in 4.0.0, and readers that need further packages.
FORMATS = ("arrow", "csv", "imagefolder", "json", "parquet", "text")

_OLDEST = 4  # earlier releases execute the scripts in a dataset


def check_torchvision(name: str) -> None:
    """Refuse a name that is not in ``TORCHVISION``. Nothing is imported.

    >>> check_torchvision("FashionMNIST")
    """
    if name not in TORCHVISION:
        must = "must be a class of torchvision.datasets that is known to execute no code of its files."
        raise ConfigError("data.name", f"{must} {did_you_mean(name, TORCHVISION)}", name)


def check_hugging_face(library: Any, path: str) -> None:
    """Refuse a release of ``datasets`` that executes scripts, and a reader of it that is not in ``FORMATS``.

    Args:
        library: the package ``datasets``.
        path: the argument of ``load_dataset``.
    """
    version = str(getattr(library, "__version__", _OLDEST))
    if int(version.partition(".")[0]) < _OLDEST:
        must = f"needs datasets {_OLDEST} or newer: older releases execute the scripts in a dataset"
        raise ConfigError("data=huggingface", must, version)
    reader = path.isidentifier() and path not in FORMATS and _is_own_reader(path)
    if reader:
        must = "must be a dataset, or a reader that is known to execute no code of its files."
        raise ConfigError("data.path", f"{must} {did_you_mean(path, FORMATS)}", path)


def _is_own_reader(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"datasets.packaged_modules.{name}") is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def without_ghostscript() -> Iterator[None]:
    """Within this context, Pillow does not start Ghostscript, which executes PostScript.

    Pillow chooses the format by the content of a file, so a file with the name ``.png`` may contain PostScript.
    """
    try:
        from PIL import EpsImagePlugin as plugin
    except ImportError:  # without Pillow no image is read
        yield
        return
    before = plugin.gs_binary
    plugin.gs_binary = False  # Pillow's own value if Ghostscript is not installed
    try:
        yield
    finally:
        plugin.gs_binary = before

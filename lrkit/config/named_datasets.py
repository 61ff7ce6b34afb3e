"""Data sets of other libraries that are asked for by a name: which may be, and how their files are read.

The name can come from an untrusted config, and the files from an untrusted folder. Some classes of torchvision and some
readers of Hugging Face unpickle what they find there, or unpack it wherever the archive says. So a name must be of a
list: of those whose code was read, in the releases named below, and found to make numbers of files and nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = ["FORMATS", "TORCHVISION", "check_hugging_face", "check_torchvision", "without_ghostscript"]

#: Classes of ``torchvision.datasets`` that yield images of one size with a class each. Read in 0.23.0 and 0.29.1, with
#: what they call: archives and pickles (CIFAR's) are only opened after their MD5 was compared with the library's own.
#: Not here: LSUN, which unpickles a cache; FGVCAircraft, which unpacks any archive; those whose images differ in size.
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

#: Readers that come with Hugging Face ``datasets``; 4.0.0 and 5.2.0 were searched for what unpickles, evaluates, or
#: imports by name. Not here: ``pandas``, which unpickled in 4.0.0, and those that need further packages.
FORMATS = ("arrow", "csv", "imagefolder", "json", "parquet", "text")

_OLDEST = 4  # releases before it execute the scripts that a data set brings along


def check_torchvision(name: str) -> None:
    """Refuse a name that is not of ``TORCHVISION``. Nothing is imported.

    >>> check_torchvision("FashionMNIST")
    """
    if name not in TORCHVISION:
        must = "must be a name in torchvision.datasets whose reading is known to execute nothing."
        raise ConfigError("data.name", f"{must} {did_you_mean(name, TORCHVISION)}", name)


def check_hugging_face(library: Any, path: str) -> None:
    """Refuse a release of ``datasets`` that executes scripts, and a reader of its own that is not of ``FORMATS``.

    Args:
        library: the package ``datasets``.
        path: what ``load_dataset`` is to be given.
    """
    version = str(getattr(library, "__version__", _OLDEST))
    if int(version.partition(".")[0]) < _OLDEST:
        must = f"needs datasets {_OLDEST} or newer, for older ones execute the scripts that a data set brings along"
        raise ConfigError("data=huggingface", must, version)
    reader = path.isidentifier() and path not in FORMATS and _comes_with_datasets(path)
    if reader:
        must = "must be a data set, or a reader that is known to execute nothing."
        raise ConfigError("data.path", f"{must} {did_you_mean(path, FORMATS)}", path)


def _comes_with_datasets(name: str) -> bool:
    try:
        return importlib.util.find_spec(f"datasets.packaged_modules.{name}") is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def without_ghostscript() -> Iterator[None]:
    """Within it, Pillow does not hand files to Ghostscript, which runs programs written in PostScript.

    Pillow goes by what a file contains, so that an image named ``.png`` may be such a program.
    """
    try:
        from PIL import EpsImagePlugin as plugin
    except ImportError:  # without Pillow there are no images to read
        yield
        return
    before = plugin.gs_binary
    plugin.gs_binary = False  # what Pillow itself notes where there is none
    try:
        yield
    finally:
        plugin.gs_binary = before

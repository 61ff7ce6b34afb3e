"""Random damage in the folder of a run: no traceback, no hang, and no write outside of the folder.

Each example is a small run with one damage (``damaged_run_folders``), and one command line with its folder.
"""

from __future__ import annotations

import io
import random
import resource
import shutil
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from damaged_run_folders import craft

from lrkit.base.errors import ConfigError
from lrkit.checkpoint.saved_run import load_saved_run
from lrkit.cli.main import main

#: Seconds of computing, and on the clock of a machine that may be busy.
COMPUTING, WAITING = 5.0, 60.0
TINY = ["trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "model.hidden=[2]"]
LAST = "RUN/checkpoints/last.ckpt"
#: Commands for a folder, and for a checkpoint. The run is half finished: after 2 of its 4 steps.
LOOKED_AT = [["compare", "RUN"], ["compare", "RUN"], ["show", "resume.path=RUN"], ["train", "resume.path=RUN"]]
GONE_ON_WITH = [
    ["train", "logger=none", "resume.path=RUN"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=extend", "trainer.max_epochs=3"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=override", "optimizer.lr=0.05"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=override", "data.batch_size=64"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=cooldown", "cooldown=linear", "cooldown.length=2"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=restart"],
    ["train", "logger=none", "resume.path=RUN", "resume.policy=restore"],
    ["train", "logger=none", f"resume.path={LAST}", "resume.policy=restore"],
    ["show", f"resume.path={LAST}"],
]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_done(tmp_path_factory.mktemp("honest"))


def half_done(folder: Path) -> Path:
    """The folder of a run of two epochs, of which one is done."""
    with chdir(folder), _silent() as said:
        assert main(["train", *TINY, "trainer.max_epochs=2", "hydra.run.dir=run"]) == 0, said.getvalue()
    checkpoints = folder / "run" / "checkpoints"
    shutil.copy(checkpoints / "previous.ckpt", checkpoints / "last.ckpt")
    return folder / "run"


@contextmanager
def _silent() -> Iterator[io.StringIO]:
    said = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
        warnings.simplefilter("ignore")
        yield said


class Hangs(BaseException):
    """Too long: nothing may catch it."""


@contextmanager
def _watched() -> Iterator[None]:
    def ring(signum: int, *_: Any) -> None:
        raise Hangs(f"more than {COMPUTING} s of computing, or {WAITING} s")

    before = [(signum, signal.signal(signum, ring)) for signum in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, COMPUTING)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        for signum, handler in before:
            signal.signal(signum, handler)


def _seen(top: Path, *but: Path) -> dict[str, Any]:
    """Return names, kinds and contents of the files below a folder."""
    found: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        if any(path == each or each in path.parents for each in but):
            continue
        found[str(path)] = (path.lstat().st_mode, path.is_file() and not path.is_symlink() and path.read_bytes())
    return found


def example(seed: int, honest: Path) -> tuple[str, int, str]:
    """Run one command line on one damaged folder; return the damage, the exit code and the output."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        here = Path(place).resolve()
        run, outside, work = here / "in" / "run", here / "outside", here / "work"
        shutil.copytree(honest, run, symlinks=True)
        (outside / "folder").mkdir(parents=True)
        (outside / "precious").write_text("mine")
        (outside / "folder" / "last.ckpt").write_text("mine")
        work.mkdir()
        checkpoint = seed % 2 == 0
        what = craft(chance, run, outside, checkpoint=checkpoint)
        words = chance.choice(GONE_ON_WITH if checkpoint else LOOKED_AT)
        if words[-1] == f"resume.path={LAST}":
            (run / "plan.json").unlink()  # so that the config is looked for in the checkpoint
        words = [word.replace("RUN", str(run)) for word in words]
        before = _seen(here, run, work)
        with chdir(work), _silent() as out, _watched():
            code = main(words)
        said = out.getvalue()
        where = f"seed {seed}: {what}\n{' '.join(words)} -> {code}: {said[-2000:]}"
        foreseen = any(word in said for word in ("steps were planned", "cannot be written"))
        assert code in (0, 2, 3) or (code == 1 and foreseen), where
        assert "Traceback" not in said, where
        assert _seen(here, run, work) == before, where
        assert {path.name for path in work.iterdir()} <= {"outputs"}, where
        if code == 2:
            assert sum(line.startswith("lrkit: ") for line in said.splitlines()) == 1, where
        return f"{what} | {' '.join(words)}", code, said


#: A dozen examples of which only one trains: the others are refused before, or ask for something else.
QUICK = [1, 2, 3, 8, 17, 29, 34, 42, 47, 54, 67, 78]


@pytest.mark.parametrize("seed", QUICK)
def test_it_is_answered(seed: int, honest: Path) -> None:
    example(seed, honest)


@pytest.mark.parametrize("seed", range(40))
def test_a_checkpoint_is_taken_or_refused(seed: int, honest: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    what = craft(random.Random(seed), run, tmp_path, checkpoint=True)
    try:
        with _watched():
            load_saved_run(str(run))
    except ConfigError as error:
        assert str(error).startswith("resume.path "), f"{what}: {error}"


@pytest.mark.slow
def test_two_thousand(honest: Path) -> None:
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    codes = Counter(example(seed, honest)[1] for seed in range(1000, 3000))
    assert codes[0] > 400 and codes[2] > 400, codes  # the examples are of both kinds: harmless, and refused
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun
    assert taken < 2**20, f"{taken} KiB of memory were taken"

"""Resume: bit-identical with the same plan; with another plan refused, or changed by the policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupted_runs import BASE, EVERY, Interrupted, Stop, full_and_resumed, ignored
from recorded_rates import Recorded

from lrkit.base.errors import ConfigError
from lrkit.config.compose import compose
from lrkit.training.run import run_training


@pytest.fixture(autouse=True)
def never() -> Iterator[None]:
    yield
    Stop.at = None


@ignored
@pytest.mark.parametrize("at", [1, 5, 6, 7, 12, 17, 23], ids=lambda at: f"step{at}")
def test_a_resumed_run_is_the_same_run(at: int, tmp_path: Path, recorded: Recorded) -> None:
    """Within the warmup, in the middle and at the end of epochs; shuffled data and dropout."""
    full_and_resumed(tmp_path, recorded, at, "warmup=linear", "warmup.length=8", "schedule=one_cycle")


@ignored
@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.accumulate_grad_batches=2"],
        ["plateau=reduce", "plateau.patience=0", "plateau.threshold=1e9", "plateau.threshold_mode=abs"],
        ["optimizer=adamw", "param_groups=no_decay", "schedule=restarts"],
        ["optimizer=schedule_free_adamw", "schedule=constant"],
        ["optimizer=adamw", "schedule@coschedule.weight_decay=cosine"],
    ],
    ids=["accumulation", "plateau", "groups", "schedule_free", "weight_decay"],
)
def test_so_it_is_with(overrides: list[str], tmp_path: Path, recorded: Recorded) -> None:
    full_and_resumed(tmp_path, recorded, 8, *overrides)


def saved_at(tmp_path: Path, at: int, *overrides: str) -> Path:
    """A checkpoint at step ``at`` of a run of 24 steps."""
    folder = tmp_path / "trunk"
    folder.mkdir()
    Stop.at = at
    with pytest.raises(Interrupted):
        run_training(compose([*BASE, EVERY[0] % (tmp_path / "kept"), EVERY[1], *overrides]), folder, quiet=True)
    Stop.at = None
    return tmp_path / "kept" / f"step={at}.ckpt"


@ignored
class TestPolicies:
    def go_on(self, tmp_path: Path, checkpoint: Path, *overrides: str) -> Any:
        folder = tmp_path / "on"
        folder.mkdir(exist_ok=True)
        keys = {o.partition("=")[0] for o in overrides}
        base = [o for o in BASE if o.partition("=")[0] not in keys]
        return run_training(compose([*base, *overrides, f"resume.path='{checkpoint}'"]), folder, quiet=True)

    def test_a_difference_is_shown_and_the_policies_are_named(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)
        recorded.clear()
        with pytest.raises(ConfigError, match=r"^resume\.policy must be set.*base rate.*restore.*restart") as caught:
            self.go_on(tmp_path, checkpoint, "optimizer.lr=0.05", "schedule.end=0.1", "trainer.max_epochs=8")
        assert "base rate" in caught.value.details and "0.05" in caught.value.details
        assert not recorded

    def test_restore_goes_on_with_the_old_plan(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)
        recorded.clear()
        result = self.go_on(tmp_path, checkpoint, "optimizer.lr=0.05", "schedule=step", "resume.policy=restore")
        cosine = run_training(compose(BASE), self.fresh(tmp_path), quiet=True).plan
        assert [s["default"][0] for s in recorded[:12]] == [cosine.lr(cosine.groups[0], t) for t in range(12, 24)]
        assert result.plan.base_lr == 0.1

    def test_override_is_the_new_plan_at_the_same_step(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)
        recorded.clear()
        result = self.go_on(tmp_path, checkpoint, "optimizer.lr=0.05", "optimizer.momentum=0.5", "schedule=linear",
                            "resume.policy=override")  # fmt: skip
        assert [s["default"] for s in recorded] == [
            (result.plan.lr(result.plan.groups[0], t), 0.5) for t in range(12, 24)
        ]
        assert recorded[0]["default"][0] == 0.025

    def test_extend_is_continuous_and_reaches_the_new_end(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)
        recorded.clear()
        result = self.go_on(tmp_path, checkpoint, "trainer.max_epochs=8", "resume.policy=extend")
        rates = [s["default"][0] for s in recorded]
        assert abs(rates[0] - 0.05) < 1e-12 and len(rates) == 36  # half way down the cosine of 24 steps
        assert rates == sorted(rates, reverse=True) and result.plan.curve(48) == 0.0 and rates[-1] > 0.0

    def test_extend_of_a_stable_phase_is_simply_the_new_plan(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12, "schedule=wsd")
        recorded.clear()
        self.go_on(tmp_path, checkpoint, "schedule=wsd", "trainer.max_epochs=8", "resume.policy=extend")
        rates = [s["default"][0] for s in recorded]
        assert rates[:26] == [0.1] * 26 and rates[27] < 0.1  # 20 % of 48 steps is a decay of 10

    def test_cooldown_branches_off(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12, "schedule=constant")
        recorded.clear()
        result = self.go_on(tmp_path, checkpoint, "schedule=constant", "cooldown=linear", "cooldown.length=5",
                            "resume.policy=cooldown")  # fmt: skip
        assert [s["default"][0] for s in recorded] == pytest.approx([0.1, 0.08, 0.06, 0.04, 0.02], abs=1e-15)
        assert result.plan.horizon.steps == 17

    @pytest.mark.parametrize("policy", ["restore", "cooldown"])
    def test_the_order_of_the_data_is_that_of_the_checkpoint(self, tmp_path: Path, policy: str) -> None:
        """A resume within an epoch, whose order depends on the seed; the user need not type the seed again."""
        checkpoint = saved_at(tmp_path, 9, "schedule=constant", "seed=3")
        words = ["schedule=constant", "cooldown=linear", "cooldown.length=5", f"resume.policy={policy}"]
        self.go_on(tmp_path, checkpoint, *words)
        with pytest.raises(ConfigError, match=r"^data\.seed must stay 3"):
            self.go_on(tmp_path, checkpoint, *words, "data.seed=1")

    def test_restart_takes_the_weights_alone(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)
        recorded.clear()
        self.go_on(tmp_path, checkpoint, "optimizer=adamw", "resume.policy=restart")
        assert len(recorded) == 24 and recorded[0]["default"][0] == 1e-3

    def test_another_batch_size_keeps_the_place_by_samples(self, tmp_path: Path, recorded: Recorded) -> None:
        checkpoint = saved_at(tmp_path, 12)  # 12 x 32 samples, 2 of 4 epochs
        recorded.clear()
        result = self.go_on(tmp_path, checkpoint, "data.batch_size=64", "trainer.limit_train_batches=3",
                            "resume.policy=override")  # fmt: skip
        assert [s["default"][0] for s in recorded] == [result.plan.lr(result.plan.groups[0], t) for t in range(6, 12)]

    def test_a_finished_run_is_not_resumed(self, tmp_path: Path) -> None:
        done = run_training(compose(BASE), self.fresh(tmp_path), quiet=True)
        with pytest.raises(ConfigError, match=r"^resume\.path contains a finished run: step 24 of 24"):
            self.go_on(tmp_path, done.folder)

    def fresh(self, tmp_path: Path) -> Path:
        folder = tmp_path / "fresh"
        folder.mkdir()
        return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be an existing checkpoint"),
        (b"no checkpoint", "cannot be read as a checkpoint"),
        ({"state_dict": {}}, "this is a Lightning checkpoint without a plan"),
        ({"weight": torch.zeros(1)}, "this is a checkpoint without a plan"),
        ({"lrkit": {}, "state_dict": {}}, "contains only weights, and no state of an optimizer: use a checkpoint"),
    ],
)
def test_what_cannot_be_resumed(content: Any, message: str, tmp_path: Path, train: Callable[..., Any]) -> None:
    file = tmp_path / "some.ckpt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ConfigError, match=message):
        train(f"resume.path='{file}'")


def test_a_policy_needs_a_path_and_must_exist(train: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"^resume\.path must be set"):
        train("resume.policy=extend")
    with pytest.raises(ConfigError, match=r"^resume\.policy is not a policy\. Did you mean 'extend'"):
        train("resume.policy=extent")

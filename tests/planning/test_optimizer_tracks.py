"""Several optimizers: each parameter in one track, each track with its own plan, as shown, logged and resumed."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import several_optimizers
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import lrkit
from lrkit.base.errors import ConfigError, RunError
from lrkit.checkpoint.resume_differences import list_plan_differences
from lrkit.cli.main import main
from lrkit.config import compose as config
from lrkit.config.compose import compose
from lrkit.lightning.imports import Callback, Trainer
from lrkit.optim import own_optimizers
from lrkit.planning import render
from lrkit.planning.optimizer_tracks import Track, assign_parameters, horizon_of, parse_tracks, step_at
from lrkit.planning.picture import draw_picture
from lrkit.planning.plan import Plan
from lrkit.runs import event_reader
from lrkit.schedules.horizon import Horizon

BASE = ("model=custom", "data=custom", "data._target_=several_optimizers.Data", "data.batch_size=5",
        "trainer.max_epochs=2", "trainer.limit_train_batches=null", "trainer.limit_val_batches=null",
        "optimizer=adam")  # fmt: skip
BOTH = "optimizers={generator: {}, discriminator: {optimizer: {lr: 4e-4}}}"
EVERY = "optimizers={generator: {every: 5}, discriminator: {optimizer: {lr: 4e-4}}}"
#: The size of the data above, for a plan without data: 60 samples in batches of 5, twice.
DECLARED = "data.train_samples=60"


@pytest.fixture
def stepped() -> Iterator[Callable[[], list[list[float]]]]:
    """The rates that each optimizer used, in the order in which they took their first steps."""
    rates: dict[int, list[float]] = {}
    kept = []  # so that no two have the same identity

    def look(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if "name" in optimizer.param_groups[0]:  # else not lrkit's
            kept.append(optimizer)
            rates.setdefault(id(optimizer), []).append(float(optimizer.param_groups[0]["lr"]))

    handle = register_optimizer_step_post_hook(look)
    yield lambda: [*rates.values()]
    handle.remove()


def gan(model: str, *more: str) -> list[str]:
    given = {word.partition("=")[0] for word in more}
    return [*(w for w in BASE if w.partition("=")[0] not in given), f"model._target_=several_optimizers.{model}", *more]


def planned(plan: Plan, track: str) -> list[float]:
    own = plan.tracks[track]
    assert own.horizon.steps is not None
    return [own.lr(own.groups[0], t) for t in range(own.horizon.steps)]


class TestPlan:
    @pytest.mark.parametrize(
        ("steps", "per_epoch", "every", "offset", "own"),
        [
            (24, 12, 5, 0, 6),
            (24, 12, 12, 0, 2),
            (24, 12, 13, 0, 2),
            (30, 12, 5, 0, 8),
            (24, 12, 5, 4, 4),
            (28, 12, 5, 3, 5),
        ],
    )
    def test_a_track_takes_as_many_steps_as_its_module_does(
        self, steps: int, per_epoch: int, every: int, offset: int, own: int
    ) -> None:
        taken = [batch for batch in range(steps) if batch % per_epoch % every == offset]
        assert horizon_of(Horizon(steps, per_epoch, 8), every, offset).steps == own == len(taken)
        assert [step_at(batch, every, offset, per_epoch) for batch in taken] == [*range(own)]
        assert all(step_at(batch, every, offset, per_epoch) is None for batch in {*range(steps)} - {*taken})

    def test_what_a_track_does_not_say_is_the_runs(self) -> None:
        run = compose(["optimizer=adam", "optimizer.lr=0.5", "schedule=step", "warmup=linear", "seed=7",
                       "optimizers={a: {optimizer: {eps: 1e-5}, warmup: {}}}", "optimizers.b.schedule.gamma=0.3",
                       "optimizer@optimizers.b.optimizer=sgd", "optimizers.b.optimizer.lr=2"])  # fmt: skip
        a, b = (track.config(run) for track in parse_tracks(run["optimizers"]))
        assert a["optimizer"] == {**run["optimizer"], "eps": 1e-5} and a["warmup"] == {}
        assert a["schedule"] == run["schedule"] and b["schedule"] == {**run["schedule"], "gamma": 0.3}
        assert b["optimizer"]["_target_"] == "torch.optim.SGD" and b["optimizer"]["lr"] == 2
        assert "eps" not in b["optimizer"] and b["warmup"] == run["warmup"]

    def test_a_plan_comes_back_from_json(self) -> None:
        plan = config.plan(compose([EVERY, DECLARED, "warmup=linear"]))
        again = Plan.from_json(json.loads(json.dumps(plan.to_json())))
        assert again == plan and list(again.tracks) == ["generator", "discriminator"]
        assert again.tracks["generator"].every == 5
        assert again.to_json() == json.loads(json.dumps(plan.to_json()))

    def test_a_run_with_one_optimizer_has_the_plan_that_it_had(self) -> None:
        """No key of it speaks of tracks."""
        plain = config.plan(compose([DECLARED])).to_json()
        assert "optimizers" not in plain["config"] and not plain.keys() & {"tracks", "every"}

    def test_a_schedule_beside_the_rate_is_every_tracks(self) -> None:
        plan = config.plan(compose([BOTH, DECLARED, "optimizer=adamw", "schedule@coschedule.weight_decay=linear"]))
        header = render.render_csv(plan).splitlines()[0].split(",")
        assert "weight_decay/generator/default" in header and "weight_decay/discriminator/default" in header

    def test_a_page_has_each_track(self) -> None:
        said = render.render_text(
            config.plan(compose([EVERY, DECLARED, "data.batch_size=5", "optimizer=adam"])), curve=False
        )
        assert "generator: lr 0.001   Adam\nlr[generator, group, t] = 0.001 x curve(t) (schedule)\n" in said
        assert "discriminator: lr 0.0004   Adam\n" in said
        assert re.search(r"45 steps \(every 5 of 180 batches\); 3 steps an epoch \(every 5 of 12 batches\)", said)

    def test_a_picture_has_a_curve_for_each(self, tmp_path: Path) -> None:
        plan = config.plan(compose([EVERY, DECLARED]))
        assert draw_picture({"lr": plan}, tmp_path / "a.svg").read_text().count("<path") > 0
        assert "lr generator" in draw_picture({"lr": plan}, tmp_path / "b.svg").read_text()


class TestAssign:
    NAMES: ClassVar = {
        "trunk.weight": True, "actor.weight": True, "critic.weight": True, "scale": True, "old.weight": False
    }  # fmt: skip

    def test_by_attribute_and_by_pattern(self) -> None:
        tracks = parse_tracks({"actor": {"parameters": "^(actor|trunk)[.]"}, "critic": {}, "scale": {}})
        assert assign_parameters(self.NAMES, tracks) == {
            "actor": ["trunk.weight", "actor.weight"], "critic": ["critic.weight"], "scale": ["scale"]
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("node", "message"),
        [
            ({"actor": {}, "critic": {}}, r"^optimizers must match every trained parameter, and none matches trunk\."
             r"weight, scale: widen a pattern, such as optimizers\.actor\.parameters='\^\(actor\|trunk\)\[\.\]'"),
            ({"actor": {"parameters": "^[at]"}, "trunk": {}},
             r"^optimizers\.actor and optimizers\.trunk both match trunk.weight: a parameter must have one"),
            ({"actr": {}}, r"^optimizers\.actr must be an attribute .* Did you mean 'actor'\?"),
            ({"actor": {"parameters": "^x"}}, r"^optimizers\.actor\.parameters must match a parameter: it match"),
            ({"old": {}}, r"^optimizers\.old must have a parameter that is trained: old\.weight is frozen"),
        ],
    )  # fmt: skip
    def test_a_parameter_in_none_or_in_two_is_named(self, node: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            assign_parameters(self.NAMES, parse_tracks(node))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizers=[a]"], r"^optimizers must name each optimizer: \{generator: \{\}, .* Received: "),
        (["optimizers.a=3"], r"^optimizers\.a must be a group of keys\. Received: 3"),
        (["optimizers.a.lr=1"], r"^optimizers\.a\.lr is not a key\. Did you mean 'optimizer\.lr'\?"),
        (["optimizers.a.evry=1"], r"^optimizers\.a\.evry is not a key\. Did you mean 'every'\?"),
        (["optimizers.a.every=0"], r"^optimizers\.a\.every must be a whole number of batches >= 1\. Received: 0"),
        (["optimizers.a.every=5", "optimizers.a.offset=5"], r"^optimizers\.a\.offset must be a whole number in \[0, 5"),
        (["optimizers.a.every=20", "optimizers.a.offset=12"], r"^optimizers\.a\.offset leaves it no step in an epoch"),
        (["optimizers.a.parameters='('"], r"^optimizers\.a\.parameters must be a regular expression "),
        (["optimizers.a.optimizer.lrr=1"], r"^optimizers\.a\.optimizer\.lrr is not a key\. Did you mean 'lr'\?"),
        (["optimizers.a.optimizer.lr=-1"], r"^optimizers\.a\.optimizer\.lr must be a finite number > 0\. Received: -1"),
        (["optimizers.a.optimizer._target_=torch.optim.Adam"], r"^optimizers\.a\.optimizer\.lr must be set"),
        (["optimizers.a.warmup.length=1"], r"^optimizers\.a\.warmup\.length is not a key of warmup=none; .* "
         r"warmup@optimizers\.a\.warmup=linear"),
        (["optimizers.a.schedule.end=-1"], r"^optimizers\.a\.schedule\.end must "),
        (["optimizers.a.every=5", "warmup=linear", "warmup.length=45"], r"^optimizers\.a\.warmup\.length "),
        (["optimizers.a.every=5", "data.train_samples=null", "horizon.steps=9"], r"^optimizers\.a\.every needs the "
         r"number of optimizer steps in an epoch"),
        (["optimizers.a.param_groups.rules=[{name: x}]"], r"^optimizers\.a\.param_groups\.rules\[0\] must have"),
        (["optimizers.a.every=2", "trainer.max_steps=9"], r"^trainer\.max_steps and optimizers .*max_epochs"),
        (["optimizers.a.every=2", "trainer.fast_dev_run=2"], r"^trainer\.fast_dev_run and optimizers "),
        (["optimizers.a.every=2", "trainer.accumulate_grad_batches=2"], r"^trainer\.accumulate_grad_batches and"),
        (["optimizers.a.every=2", "batch.effective=64"], r"^batch\.effective and optimizers "),
        (["optimizers.a.every=2", "trainer.gradient_clip_val=1"], r"^trainer\.gradient_clip_val and .*clip_gr"),
        (["optimizers.a.every=2", "guard=reduce"], r"^guard=reduce and optimizers .* guard=stop"),
        (["optimizers.a.every=2", "guard=skip"], r"^guard=skip and optimizers .* guard=stop"),
        (["optimizers.a.every=2", "optimizer.lr=auto"], r"^optimizer\.lr=auto and optimizers .* one rate"),
        (["optimizers.a.optimizer.lr=auto"], r"^optimizers\.a\.optimizer\.lr=auto and optimizers .* one rate"),
        (["optimizers.a.every=2", "resume.path=x", "resume.policy=extend"], r"^resume\.policy=extend and optimizers "),
        (["optimizers.a.every=2", "resume.path=x", "resume.policy=cooldown"], r"^resume\.policy=cooldown and optimiz"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant(words: list[str], message: str) -> None:
    keys = {word.partition("=")[0] for word in words}
    given = [word for word in (DECLARED, "data.batch_size=5") if word.partition("=")[0] not in keys]
    if "data.train_samples" in keys:  # unknown, because the data were not read
        given += ["data=custom", "data._target_=several_optimizers.Data"]
        words = [word for word in words if not word.startswith("data.")]
    with pytest.raises(ConfigError, match=message):
        config.check(compose([*given, *words]))


def test_find_is_for_one_rate(tmp_path: Path) -> None:
    from lrkit.lr_finder.find import find_lr

    with pytest.raises(ConfigError, match=r"^optimizers must be null for lrkit find"):
        find_lr(compose(gan("GAN", BOTH)), tmp_path, quiet=True)


class TestTrain:
    def test_rates_are_the_plans_and_what_show_says(
        self, train: Callable[..., Any], stepped: Callable[[], list[list[float]]]
    ) -> None:
        """Also where the generator's own optimizer, warmup and schedule were chosen from the groups."""
        words = gan("GAN", "warmup=linear", "warmup.length=3", "optimizer@optimizers.generator.optimizer=rmsprop",
                    "optimizers.generator.optimizer.lr=1e-3", "schedule@optimizers.generator.schedule=step",
                    "warmup@optimizers.discriminator.warmup=none",
                    "optimizers.discriminator.optimizer.lr=4e-4")  # fmt: skip
        run = train(*words, DECLARED)
        assert stepped() == [planned(run.plan, "generator"), planned(run.plan, "discriminator")]
        rows = list(csv.DictReader(io.StringIO(render.render_csv(config.plan(compose([*words, DECLARED]))))))
        assert [[float(row[f"lr/{name}/default"]) for row in rows] for name in run.plan.tracks] == stepped()
        assert [len(each) for each in stepped()] == [24, 24] and run.status == "done"
        assert (run.plan.tracks["generator"].optimizer, run.plan.tracks["discriminator"].optimizer) == (
            "torch.optim.RMSprop", "torch.optim.Adam")  # fmt: skip
        read = Plan.from_json(json.loads((run.folder / "plan.json").read_text()))
        assert stepped() == [planned(read, name) for name in read.tracks]

    def test_wgan(self, train: Callable[..., Any], stepped: Callable[[], list[list[float]]]) -> None:
        """The generator steps in batches 0, 5 and 10 of 12; TensorBoard and show have it there, beside the losses."""
        words = gan("WGAN", EVERY, "warmup=linear", "warmup.length=1ep")
        run = train(*words, "logger=tensorboard", "trainer.log_every_n_steps=1")
        critic, generator = stepped()
        assert generator == planned(run.plan, "generator") and critic == planned(run.plan, "discriminator")
        assert (len(generator), len(critic), run.status) == (6, 24, "done")
        metrics = json.loads((run.folder / "metrics.json").read_text())
        assert (metrics["steps"], metrics["tracks"]) == (24, {"generator": 6, "discriminator": 24})
        series = event_reader.read_events(event_reader.event_files(run.folder)).series
        assert series["lr/generator/default"].steps == [0, 5, 10, 12, 17, 22]
        assert series["lr/generator/default"].values == pytest.approx(generator, rel=1e-6)
        assert series["lr/discriminator/default"].steps == [*range(24)] == series["critic"].steps
        assert "lr/default" not in series
        rows = list(csv.DictReader(io.StringIO(render.render_csv(config.plan(compose([*words, DECLARED]))))))
        column = {i: row["lr/generator/default"] for i, row in enumerate(rows) if row["lr/generator/default"]}
        assert [*column] == [0, 5, 10, 12, 17, 22] and [*map(float, column.values())] == generator

    def test_a_step_that_was_not_planned_is_refused_when_it_is_taken(self, train: Callable[..., Any]) -> None:
        with pytest.raises(
            ConfigError, match=r"^optimizers\.discriminator\.every must be the batches .* batch 1 of an ep"
        ):
            train(*gan("WGAN", "optimizers={generator: {every: 5}, discriminator: {every: 2}}"))
        with pytest.raises(ConfigError, match=r"^optimizers\.discriminator must take at most one .* batch 0 it took 2"):
            train(*gan("Twice", BOTH))
        late = "optimizers={generator: {every: 5, offset: 4}, discriminator: {}}"
        with pytest.raises(
            ConfigError, match=r"^optimizers\.generator\.every .* and \.offset the first: .* batch 4 of"
        ):
            train(*gan("Late", EVERY))
        run = train(*gan("Late", late))
        assert (run.status, run.plan.tracks["generator"].horizon.steps) == ("done", 4)

    def test_a_step_that_is_left_out_is_told_at_once_and_ends_the_run_as_failed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where it was left out before a stop."""
        monkeypatch.chdir(tmp_path)
        wrong = (
            "generator: 24 steps were planned, 6 were taken: its schedule did not reach its end."
            " optimizers.generator.every and .offset set its batches"
        )
        assert main(["train", *gan("WGAN", BOTH, "logger=none")]) == 1
        said = capsys.readouterr()
        assert said.out.count("note: generator took no step in batch 1 of an epoch, where the plan has one") == 1
        assert said.err == f"lrkit: {wrong}\n"
        (folder,) = Path("outputs/runs").iterdir()
        result = json.loads((folder / "metrics.json").read_text())
        assert (result["status"], result["why"]) == ("failed", wrong)

        words = gan("Hasty", BOTH, "logger=none", "hydra.run.dir=part")
        assert (
            main(["train", *words, "+callbacks.signal={_target_: failing_parts.SignalAt, step: 15, name: SIGTERM}"])
            == 143
        )
        capsys.readouterr()
        assert main(["train", *words[:-1], "~callbacks.signal", "resume.path=part"]) == 1
        assert "generator: 24 steps were planned, 22 were taken: its" in capsys.readouterr().err

    def test_a_track_that_was_not_trained_is_named(self, train: Callable[..., Any], tmp_path: Path) -> None:
        with pytest.raises(RunError, match=r"^generator: no parameter had a gradient at any step, so none of its par"):
            train(*gan("Detached", BOTH))
        never = "optimizers={generator: {every: 12}, discriminator: {}}"
        with pytest.raises(RunError, match=r"^generator: 2 steps were planned, none was taken, so none of its parame"):
            train(*gan("Never", never))
        run = train(*gan("WGAN", EVERY, "+callbacks.ends={_target_: test_optimizer_tracks.Ends, at: 2}"))
        assert run.status == "stopped"  # before the generator's second step: no track was late
        module = lrkit.configure(
            several_optimizers.Detached(), lr=1e-3, optimizers={"generator": {}, "discriminator": {}}
        )
        with pytest.warns(UserWarning, match="^generator: no parameter had a gradient at any step"):
            trainer_here(tmp_path).fit(module, several_optimizers.Data(batch_size=5))

    def test_optimizers_and_schedulers_come_in_the_modules_own_order(self, train: Callable[..., Any]) -> None:
        for words in (BOTH, "optimizers={discriminator: {}, generator: {}}"):
            assert train(*gan("Reversed", words)).status == "done"  # it looks itself, see there
        assert train(*gan("OneScheduler", BOTH)).status == "done"

    def test_a_network_that_is_made_of_other_attributes(self, train: Callable[..., Any]) -> None:
        run = train(*gan("Composed", BOTH))
        assert run.status == "done" and list(run.plan.tracks) == ["generator", "discriminator"]

    def test_a_shared_trunk_is_given_to_one(
        self, train: Callable[..., Any], stepped: Callable[[], list[list[float]]]
    ) -> None:
        with pytest.raises(
            ConfigError, match=r"^optimizers must match every trained parameter, and none matches trunk\.w"
        ):
            train(*gan("ActorCritic", "optimizers={actor: {}, critic: {}}"))
        both = "optimizers={critic: {optimizer: {lr: 4e-4}}, actor: {parameters: '^(actor|trunk)[.]'}}"
        run = train(*gan("ActorCritic", both, "optimizers.actor.param_groups.rules=[{name: top, pattern: '^actor', "
                         "lr_scale: 10}]"))  # fmt: skip
        assert [(g.name, g.lr_scale) for g in run.plan.tracks["actor"].groups] == [("top", 10.0), ("default", 1.0)]
        assert stepped() == [planned(run.plan, "actor"), planned(run.plan, "critic")]  # the module's order

    @pytest.mark.parametrize(
        ("model", "words", "message"),
        [
            ("GAN", (), r"^optimizers must be set, because GAN\.configure_optimizers makes 2 optimizers \(Adam of "
             r"generator, Adam of discriminator\): say 'optimizers=\{generator: \{\}, discriminator: \{\}\}'\.$"),
            ("Split", (), r"makes 2 optimizers \(Adam of generator and embedding, Adam of discriminator\): say "
             r"\"optimizers=\{generator: \{parameters: '\^\(generator\|embedding\)\[\.\]'\}, discriminator: "
             r"\{\}\}\"\.$"),
            ("ActorCritic", (), r"\(RMSprop of trunk and actor, Adam of trunk and critic\).* trunk is in several, and "
             r"must be in one"),
            ("GAN", ("optimizers.all.parameters=.",),
             r"^optimizers must have 2 names, one for each optimizer of GAN\.configure_opt"),
            ("GAN", ("optimizers={generator: {optimizer: {momentum: 1}}, discriminator: {}}",),
             r"^optimizers\.generator\.optimizer\.momentum is not a key"),
            ("GAN", ("optimizers={generator: {optimizer: {betas: 3}}, discriminator: {}}",),
             r"^optimizers\.generator\.optimizer\.betas must be two numbers"),
            ("Automatic", (BOTH,), r"^optimizers needs a module that takes its steps itself: Automatic\.automatic_opt"),
        ],
    )  # fmt: skip
    def test_it_is_refused_before_training(
        self, model: str, words: tuple[str, ...], message: str, train: Callable[..., Any], stepped: Any
    ) -> None:
        with pytest.raises(ConfigError, match=message):
            train(*gan(model, *words))
        assert not stepped()

    def test_what_to_type_is_right(self, train: Callable[..., Any]) -> None:
        """The line that is printed, typed: of a module whose networks have parts."""
        with pytest.raises(ConfigError) as refused:
            train(*gan("Split"))
        (word,) = shlex.split(str(refused.value).partition(": say ")[2].removesuffix("."))
        run = train(*gan("Split", word.replace("discriminator: {}", "discriminator: {every: 1}")))
        assert run.status == "done" and list(run.plan.tracks) == ["generator", "discriminator"]

    def test_a_module_with_one_or_with_what_it_does_not_say_trains_as_ever(self, train: Callable[..., Any]) -> None:
        with pytest.raises(ConfigError, match="cannot use the first batch"):  # it expects a pair
            train(*gan("Unsaid"))
        assert train(*gan("Unsaid", BOTH)).status == "done"
        one = ("model._target_=plain_lightning.Manual", "data.batch_size=10")
        run = train(*[word for word in BASE if not word.startswith("data.batch")], *one)
        assert not run.plan.tracks and "tracks" not in (run.folder / "plan.json").read_text()

    def test_the_guard_stops_each_and_no_size_of_a_loss_is_far(self, train: Callable[..., Any]) -> None:
        run = train(
            *gan("GAN", BOTH, "optimizers.generator.optimizer.lr=10", "optimizers.generator.optimizer.eps=1e-38")
        )
        assert run.plan.guard is not None and run.plan.guard.far is None
        diverged = train(*gan("Diverging", BOTH))
        assert diverged.status == "diverged"
        (entry,) = json.loads((diverged.folder / "events.json").read_text())
        assert entry["step"] == 3 and "lr" not in entry

    def test_reduce_on_plateau_lowers_all(self, train: Callable[..., Any], stepped: Any) -> None:
        run = train(*gan("GAN", BOTH, "plateau=reduce", "plateau.monitor=val_loss", "plateau.patience=0",
                         "plateau.factor=0.5", "schedule=constant", "plateau.threshold=1e9",
                         "plateau.threshold_mode=abs", "trainer.max_epochs=3"))  # fmt: skip
        for used, name in zip(stepped(), run.plan.tracks, strict=True):
            assert used == [
                lr * gain for lr, gain in zip(planned(run.plan, name), [1.0] * 24 + [0.5] * 12, strict=True)
            ]


def test_asking_leaves_no_trace() -> None:
    torch.manual_seed(0)
    module = several_optimizers.Split()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    attributes, drawn = {*vars(module)}, torch.get_rng_state()
    own = own_optimizers.find_own_optimizers(module)
    assert own is not None and [cls for cls, _ in own.optimizers] == ["Adam", "Adam"]
    assert {name: value.tolist() for name, value in module.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }
    assert {*vars(module)} == attributes and torch.equal(torch.get_rng_state(), drawn)
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.usefixtures("elsewhere")
class TestResume:
    WORDS = ("model=custom", "model._target_=several_optimizers.WGAN", "+model.inputs=64", "trainer.max_epochs=2",
             "optimizer=adam", "trainer.limit_train_batches=12", "trainer.limit_val_batches=1", "logger=none",
             "warmup=linear", "warmup.length=2",
             "optimizers={generator: {every: 5}, discriminator: {optimizer: {lr: 4e-4}}}")  # fmt: skip

    @pytest.mark.parametrize(("step", "batch"), [(8, 7), (17, 14)], ids=["first epoch", "second epoch"])
    def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
        self, step: int, batch: int, stepped: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """In mid-epoch, on lrkit's own data, whose place is known."""
        assert main(["train", *self.WORDS]) == 0
        (whole,) = Path("outputs/runs").iterdir()
        critic, generator = stepped()
        signal = f"+callbacks.signal={{_target_: failing_parts.SignalAt, step: {step}, name: SIGTERM}}"
        assert main(["train", *self.WORDS, signal]) == 143
        folder = next(path for path in Path("outputs/runs").iterdir() if path != whole)
        said = capsys.readouterr().err
        at = int(re.search(r"stopped by SIGTERM at step (\d+) of 24; checkpoint saved", said)[1])  # type: ignore[index]
        last = folder / "checkpoints" / "last.ckpt"
        kept = torch.load(last, weights_only=True)["lrkit"]
        taken = sum(k % 12 % 5 == 0 for k in range(at))
        assert (kept["step"], kept["tracks"]) == (at, {"generator": taken, "discriminator": at}) and at == batch
        assert main(["train", *self.WORDS, f"resume.path={folder}", "~callbacks.signal"]) == 0
        parts = stepped()[2:]
        assert parts[0] + parts[2] == critic and parts[1] + parts[3] == generator
        ends = [torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (whole, folder)]
        assert all(
            torch.equal(ends[0]["state_dict"][name], ends[1]["state_dict"][name]) for name in ends[0]["state_dict"]
        )

    def test_what_differs_is_told_by_track(self, capsys: pytest.CaptureFixture[str]) -> None:
        signal = "+callbacks.signal={_target_: failing_parts.SignalAt, step: 8, name: SIGTERM}"
        assert main(["train", *self.WORDS, signal]) == 143
        (folder,) = Path("outputs/runs").iterdir()
        capsys.readouterr()
        other = "optimizers={generator: {every: 4}, discriminator: {optimizer: {lr: 5e-4, eps: 1e-7}}}"
        words = [*self.WORDS[:-1], other, f"resume.path={folder}", "~callbacks.signal"]
        assert main(["train", *words]) == 2
        table = capsys.readouterr().err
        for row in (r"generator: every +5 +4", r"discriminator: base rate +0\.0004 +0\.0005",
                    r"discriminator: optimizer options: eps +1e-08 +1e-07"):  # fmt: skip
            assert re.search(row, table), table
        one, several = (config.plan(compose([DECLARED, *more])).to_json() for more in ([], [BOTH]))
        assert list_plan_differences(several, one) == [("optimizers", "generator, discriminator", "one")]
        # The new plan at the same place.
        lower = self.WORDS[-1].replace("4e-4", "2e-4")
        override = ["resume.policy=override", "~callbacks.signal"]
        assert main(["train", *self.WORDS[:-1], lower, f"resume.path={folder}", *override]) == 0


def trainer_here(folder: Path) -> Trainer:
    return Trainer(max_epochs=2, default_root_dir=folder, logger=False, enable_checkpointing=False,
                   enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip


class Ends(Callback):
    """Ends a run after a batch, as EarlyStopping does."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = trainer.should_stop or batch_idx == self.at


class TestApi:
    def test_configure(self, stepped: Any, tmp_path: Path) -> None:
        tracks = {"generator": {"every": 5}, "discriminator": {"lr": 4e-4, "schedule": "constant"}}
        module = lrkit.configure(
            several_optimizers.WGAN(), lr=1e-3, optimizer="torch.optim.Adam", options={"betas": [0.5, 0.9]},
            warmup="linear", warmup_length=2, optimizers=tracks,
        )  # fmt: skip
        trainer = trainer_here(tmp_path)
        trainer.fit(module, several_optimizers.Data(batch_size=5))
        plan = lrkit.plan(
            lr=1e-3, optimizer="torch.optim.Adam", steps=24, steps_per_epoch=12, batch_size=5, warmup="linear",
            warmup_length=2, optimizers=tracks,
        )  # fmt: skip
        assert stepped() == [planned(plan, "discriminator"), planned(plan, "generator")]
        assert trainer.optimizers[0].param_groups[0]["betas"] == (0.5, 0.9)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"optimizers": {"generator": {"lrr": 1}, "discriminator": {}}},
                r"^optimizers\.generator\.lrr is not a key",
            ),
            (
                {"optimizers": {"generator": {}}},
                r"^optimizers must match every trained parameter, and none matches discr",
            ),
            ({"optimizers": {"generator": {}, "discriminator": {}}, "guard": "skip"}, r"^guard must be stop"),
            ({}, r"^optimizers must be set, because WGAN\.configure_optimizers makes 2 optimizers"),
        ],
    )
    def test_it_refuses(self, options: dict[str, Any], message: str, tmp_path: Path) -> None:
        trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            trainer.fit(
                lrkit.configure(several_optimizers.WGAN(), lr=1e-3, **options), several_optimizers.Data(batch_size=5)
            )


def test_the_documented_command_is_accepted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "several_optimizers.md").read_text()
    commands = [line.strip() for line in page.splitlines() if line.startswith("    lrkit ")]
    assert commands
    for command in commands:
        words = shlex.split(command)[2:]
        replaced = [
            "model._target_=several_optimizers.WGAN" if word.startswith("model._target_=") else word for word in words
        ]
        replaced = [
            "data._target_=several_optimizers.Data" if word.startswith("data._target_=") else word for word in replaced
        ]
        plan = config.check(compose([*replaced, *([] if "train_samples" in command else ["data.train_samples=6400"])]))
        assert plan is not None and plan.tracks


def test_track_is_plain() -> None:
    assert Track("a").takes("a.b") and not Track("a").takes("ab")

"""The place of samples in memory: the decision, the moves, and batches that are the same at each place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lrkit.base.errors import ConfigError
from lrkit.data import Digits, placement
from lrkit.data.placement import Placement, as_floats, choose_place, count_bytes, make_ahead, move_tensors

G = 2**30


@pytest.mark.parametrize(
    ("asked", "device", "size", "free", "place"),
    [
        ("auto", "cpu", 1, None, "host"),  # on a CPU nothing changes, whatever is asked
        ("device", "cpu", 1, None, "host"),
        ("pinned", "cpu", 1, None, "host"),
        ("auto", "cuda", 20 * G, 80 * G, "device"),
        ("auto", "cuda", 20 * G + 1, 80 * G, "pinned"),
        ("device", "cuda", 79 * G, 80 * G, "device"),
        ("pinned", "cuda", 1, 80 * G, "pinned"),
        ("host", "cuda", 1, 80 * G, "host"),
        ("auto", "mps", 1 * G, 8 * G, "device"),
        ("auto", "mps", 4 * G, 8 * G, "host"),  # only CUDA has pinned memory
        ("pinned", "mps", 1, 8 * G, "host"),
        ("auto", "xla", 1, None, "host"),  # its free memory is unknown
        ("device", "xla", 1, None, "device"),
    ],
)
def test_the_place_is_decided_by_size(asked: str, device: str, size: int, free: int | None, place: str) -> None:
    assert choose_place(asked, device, size, free) == place


def test_data_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.placement must be auto, pinned or host: the data has 11 bytes, and"):
        choose_place("device", "cuda", 11, 10)


@pytest.mark.parametrize("value", ["gpu", None, True])
def test_another_place_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"data\.placement must be one of auto, device, pinned, host"):
        Digits(batch_size=8, placement=value)  # type: ignore[arg-type]


def test_windows_of_one_text_stay_views_of_it() -> None:
    windows = torch.arange(100).unfold(0, 9, 1)
    pair = windows[:, :-1], windows[:, 1:]
    assert count_bytes(pair) == 800
    x, y = move_tensors(pair, torch.device("cpu"))
    assert torch.equal(x, pair[0]) and torch.equal(y, pair[1])
    there = move_tensors(pair, torch.device("meta"))
    assert [each.shape for each in there] == [each.shape for each in pair] and there[0].is_meta
    assert count_bytes(there) == 800


def test_bytes_become_the_same_floats() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(as_floats(every), every.float() / 255)
    assert as_floats(every.float()) is not None and as_floats(torch.ones(2)).dtype == torch.float32


class OnADevice(Placement):
    """A placement whose device is played by the CPU."""

    moves: int = 0

    def settle(self) -> None:
        if self.place is None:
            self.place = self.asked
            if self.place == "device":
                OnADevice.moves += 1
                x, y = move_tensors(self.pair, torch.device("cpu"))
                self.moved = x, y
            self.note(f"on {self.place}")


def _gather_unpinned(source: Tensor, indices: Tensor) -> Tensor:
    return torch.index_select(source, 0, indices)


@pytest.mark.parametrize("place", ["device", "pinned", "host"])
def test_the_batches_are_the_same_at_each_place_and_after_a_resume(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches_of(data: Digits, state: dict[str, int] | None = None, at_most: int = 99) -> Iterator[list[list[float]]]:
        loader = data.train_dataloader()
        if state is not None:
            loader.load_state_dict(state)
        for number, (x, y) in enumerate(loader):
            if number < at_most:
                yield [x.flatten().tolist(), y.tolist()]
        if state is None:
            loader.set_epoch(1)
            yield from ([x.flatten().tolist(), y.tolist()] for x, y in loader)

    usual = Digits(batch_size=100)
    usual.setup()
    wanted = [*batches_of(usual)]
    monkeypatch.setattr("lrkit.data.in_memory.Placement", OnADevice)
    monkeypatch.setattr(placement, "_gather_pinned", _gather_unpinned)
    OnADevice.moves = 0
    data = Digits(batch_size=100, placement=place)
    data.setup()
    assert data.placed == {}  # nothing is moved before the first batch
    assert [*batches_of(data)] == wanted and data.placed == {"train": f"on {place}"}
    assert OnADevice.moves == (place == "device")  # once, not at each epoch
    position = data.train_dataloader().state_dict() | {"batch": 5}
    assert [*batches_of(data, position)] == wanted[5:12]
    data.teardown("fit")
    assert data._placements["train"].place is None


def test_the_next_batch_is_made_while_this_one_is_used() -> None:
    made: list[int] = []

    def make(indices: Tensor) -> tuple[Tensor, Tensor]:
        made.append(int(indices))
        return indices, indices

    batches = make_ahead(make, [*torch.arange(3)])
    assert [int(x) for x, _ in batches] == [0, 1, 2] == made
    batches = make_ahead(make, [*torch.arange(3)])
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert made[3:] == [0, 1]  # one ahead, and no more


def test_an_error_in_a_batch_is_raised_where_it_is_used() -> None:
    def fail(indices: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(f"batch {int(indices)}")

    with pytest.raises(RuntimeError, match="batch 0"):
        next(make_ahead(fail, [*torch.arange(2)]))

"""All generators are seeded, saved and put back together."""

import io
import random

import numpy as np
import pytest
import torch

from medkit.train import fork_rng, rng_state, seed_everything, set_rng_state


def _draw() -> tuple[float, ...]:
    return (
        random.random(),
        random.gauss(0.0, 1.0),
        float(np.random.rand()),  # noqa: NPY002
        float(np.random.standard_normal()),  # noqa: NPY002  keeps a second number back
        float(torch.rand(())),
    )


def test_a_seed_fixes_every_generator() -> None:
    seed_everything(5)
    first = _draw()
    seed_everything(5)
    again = _draw()
    seed_everything(6)

    assert first == again
    assert all(a != b for a, b in zip(first, _draw(), strict=True))


def test_torch_gets_the_seed_itself_without_a_rank() -> None:
    seed_everything(7)
    ours = torch.rand(3)
    torch.manual_seed(7)

    assert torch.equal(ours, torch.rand(3))


def test_ranks_have_streams_of_their_own() -> None:
    draws = set()
    for rank in range(4):
        seed_everything(7, rank=rank)
        draws.add(_draw())

    assert len(draws) == 4


def test_a_state_brings_back_every_generator_also_from_a_file() -> None:
    seed_everything(1)
    _draw()
    stream = io.BytesIO()
    torch.save(rng_state(), stream)
    expected = [_draw() for _ in range(3)]
    stream.seek(0)

    set_rng_state(torch.load(stream, weights_only=True))

    assert [_draw() for _ in range(3)] == expected


def test_a_fork_leaves_no_trace_also_after_an_error() -> None:
    seed_everything(1)
    expected = [_draw(), _draw()]

    seed_everything(1)
    with fork_rng():
        inside = _draw()
    first = _draw()
    with pytest.raises(KeyError), fork_rng(seed=99):  # noqa: PT012
        _draw()
        raise KeyError
    second = _draw()

    assert inside == expected[0]
    assert [first, second] == expected


def test_a_fork_with_a_seed_gives_that_seeds_numbers() -> None:
    with fork_rng(seed=3):
        forked = _draw()
    seed_everything(3)

    assert forked == _draw()


def test_states_of_absent_gpus_are_left_out() -> None:
    set_rng_state({**rng_state(), "cuda:99": torch.zeros(16, dtype=torch.uint8)})


def test_states_of_gpus_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    held = torch.arange(16, dtype=torch.uint8)
    received = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [held])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, index: received.append((state, index))
    )

    set_rng_state(rng_state())

    ((state, index),) = received
    assert torch.equal(state, held)
    assert index == 0


def test_deterministic_mode_is_set_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    calls = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", calls.append)

    seed_everything(0)
    assert calls == []
    seed_everything(0, deterministic=True)

    assert calls == [True]
    assert torch.backends.cudnn.benchmark is False


@pytest.mark.parametrize(
    ("seed", "rank", "message"),
    [
        (-1, None, "seed must be at least 0"),
        (2**32, None, r"seed must be below 2\*\*32"),
        (0, -1, "rank"),
    ],
)
def test_seeds_out_of_range_are_errors(seed: int, rank: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seed_everything(seed, rank=rank)

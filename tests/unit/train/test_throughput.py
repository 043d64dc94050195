"""Speed is what a clock says it is."""

import pytest

from medkit.train import Throughput


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rates_and_waiting_after_the_warmup() -> None:
    clock = _Clock()

    def loader() -> object:
        for _ in range(6):
            clock.now += 1.0  # a second for the data
            yield [0] * 4

    speed = Throughput(warmup=2, clock=clock)
    for batch in speed.watch(loader()):  # type: ignore[arg-type]
        clock.now += 3.0  # three for the step
        speed.update(len(batch))

    assert speed.compute() == pytest.approx(
        {"samples_per_s": 1.0, "steps_per_s": 0.25, "waiting": 0.25}
    )
    speed.reset()
    assert set(speed.compute().values()) == {0.0}


def test_nothing_counts_before_the_warmup_is_over() -> None:
    speed = Throughput(warmup=3)
    for _ in range(3):
        speed.update(1)

    assert set(speed.compute().values()) == {0.0}


@pytest.mark.usefixtures("unhooked")
def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="warmup must be at least 0; got -1"):
        Throughput(warmup=-1)

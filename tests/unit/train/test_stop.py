"""A first signal is a question, a second Ctrl-C an order, and old handlers come back."""

import signal
import threading

import pytest

from medkit.train import StopSignal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_heard_and_does_not_interrupt(number: signal.Signals) -> None:
    with StopSignal() as stop:
        before = stop.requested()
        signal.raise_signal(number)
        after = [stop.requested(), stop.requested()]

    assert not before
    assert after == [True, True]


def test_a_second_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), StopSignal():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_does_not() -> None:
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        assert stop.requested()


def test_the_old_handlers_come_back_also_after_an_error() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]

    with pytest.raises(KeyError), StopSignal():
        raise KeyError

    after = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert after == before


def test_only_the_chosen_signals_are_heard() -> None:
    with StopSignal(signals=[signal.SIGUSR1]), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_others_are_asked_on_every_so_many_calls() -> None:
    with StopSignal(check_every=3) as stop:
        signal.raise_signal(signal.SIGTERM)

        assert [stop.requested() for _ in range(4)] == [False, False, True, True]


def test_in_another_thread_nothing_is_requested_and_nothing_fails() -> None:
    answers = []

    def work() -> None:
        with StopSignal() as stop:
            answers.append(stop.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert answers == [False]


def test_a_handler_set_outside_python_is_replaced_by_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def fake(number: int, handler: object) -> None:
        calls.append(handler)

    monkeypatch.setattr(signal, "signal", fake)  # gives back None, as for foreign handlers

    with StopSignal(signals=[signal.SIGUSR1]):
        pass

    assert calls[-1] == signal.SIG_DFL

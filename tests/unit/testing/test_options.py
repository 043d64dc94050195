"""What options a part offers is read from its signature; settings cover them in pairs."""

from itertools import combinations
from typing import Literal, Optional

from hypothesis import given
from hypothesis import strategies as st

from medkit.testing._options import call_parameters, literal_values, pairwise, parameters, spell

Domains = st.dictionaries(
    st.sampled_from("abcdef"),
    st.integers(1, 4).map(lambda n: tuple(range(n))),
    max_size=6,
)


@given(Domains)
def test_settings_cover_every_pair_of_values(domains: dict[str, tuple[int, ...]]) -> None:
    rows = pairwise(domains)

    for a, b in combinations(domains, 2):
        wanted = {(x, y) for x in domains[a] for y in domains[b]}
        assert {(row[a], row[b]) for row in rows} == wanted
    for name, values in domains.items():
        assert {row[name] for row in rows} == set(values)


@given(Domains)
def test_the_first_setting_is_the_default(domains: dict[str, tuple[int, ...]]) -> None:
    assert pairwise(domains)[0] == {name: values[0] for name, values in domains.items()}


def test_settings_are_far_fewer_than_products() -> None:
    domains = dict.fromkeys("abcdefg", (0, 1, 2))

    assert len(pairwise(domains)) < 25


def test_values_are_read_from_literals_however_they_are_wrapped() -> None:
    wrapped = Optional[Literal["a", "b"]]  # noqa: UP045  the form that typing keeps

    assert literal_values(Literal["a", "b"]) == ("a", "b")
    assert literal_values(wrapped) == ("a", "b")
    assert literal_values(list[Literal["a"]] | Literal["c", "a"]) == ("a", "c")
    assert literal_values(int | None) == ()


def test_annotations_that_are_strings_are_evaluated_where_possible() -> None:
    def known(*, mode: "Literal['a']" = "a") -> None: ...
    def unknown(*, mode: "NoSuchName" = "a") -> None: ...

    assert literal_values(parameters(known)["mode"].annotation) == ("a",)
    assert parameters(unknown)["mode"].default == "a"


def test_a_call_takes_the_parameters_of_forward() -> None:
    class Part:
        def forward(self, input: int, *, mask: int = 0) -> None: ...

        def __call__(self, *args: object) -> None: ...

    assert list(call_parameters(Part())) == ["input", "mask"]
    assert list(call_parameters(lambda x: x)) == ["x"]


def test_options_are_spelled_as_in_a_call() -> None:
    assert spell({"reduction": "mean", "batch": True}) == "reduction='mean', batch=True"

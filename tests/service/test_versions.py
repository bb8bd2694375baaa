"""What is to be loaded and what to be let go: decided by what there is, what is loaded and what has failed."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from service.repository import Found, Key, Place
from service.versions import Plan, Wishes, choose_default, plan

NOBODY = Wishes()


def place(version: int, stamp: int = 0, name: str = "m") -> Place:
    return Place(name, str(version), Path(f"{name}/{version}"), (stamp,))


def found(*versions: int, labels: dict[str, str] | None = None) -> Found:
    places = tuple(place(version) for version in sorted(versions, reverse=True))
    return Found(places={"m": places}, labels={"m": labels or {}})


def loaded(*versions: int) -> dict[Key, tuple[int, ...]]:
    return {("m", str(version)): (0,) for version in versions}


def versions_of(decided: Plan) -> tuple[list[str | None], set[str]]:
    return [one.version for one in decided.load], {version for _, version in decided.unload}


def decide(
    there: Found, now: dict[Key, tuple[int, ...]], failed: dict[Key, tuple[int, ...]], wishes: Wishes = NOBODY
) -> tuple[list[str | None], set[str]]:
    return versions_of(plan(there, now, failed, wishes, keep=2))


def test_the_newest_two_are_loaded_and_the_third_let_go() -> None:
    assert decide(found(1, 2, 3), loaded(1, 2), {}) == (["3"], {"1"})
    assert decide(found(1, 2, 3), loaded(2, 3), {}) == ([], set())


def test_what_can_not_be_loaded_leaves_its_place_to_an_older_one() -> None:
    assert decide(found(1, 2, 3), {}, loaded(3)) == (["2", "1"], set())
    assert decide(found(1, 2, 3), loaded(1, 2), loaded(3)) == ([], set())


def test_what_serves_goes_on_if_what_lies_in_its_place_now_can_not_be_loaded() -> None:
    new = Found(places={"m": (place(1, stamp=5),)}, labels={"m": {}})
    assert versions_of(plan(new, loaded(1), {}, NOBODY, keep=2)) == (["1"], set())
    assert versions_of(plan(new, loaded(1), {("m", "1"): (5,)}, NOBODY, keep=2)) == ([], set())


def test_a_version_that_a_label_points_to_stays() -> None:
    assert decide(found(1, 2, 3, 4, labels={"stable": "1"}), loaded(1, 3, 4), {}) == ([], set())
    assert decide(found(1, 2, 3, 4), loaded(2, 3, 4), {}, NOBODY.with_default("m", "2")) == ([], set())


def test_a_model_that_is_to_be_unloaded_goes_and_comes_back() -> None:
    gone = NOBODY.with_unloaded("m")
    assert decide(found(1, 2), loaded(1, 2), {}, gone) == ([], {"1", "2"})
    assert decide(found(1, 2), {}, {}, gone.with_loaded("m")) == (["2", "1"], set())


def test_a_version_that_is_not_there_any_more_is_let_go() -> None:
    assert decide(found(1), loaded(1, 2), {}) == ([], {"2"})


def test_what_is_loaded_and_can_not_be_seen_just_now_is_taken_to_be_as_it_was() -> None:
    loaded_places = [place(1), place(2), place(3), place(1, name="n"), place(1, name="gone")]
    there = Found(
        places={"m": (place(3, stamp=7),)}, labels={}, unclear=frozenset({("m", "2")}), unread=frozenset({"n"})
    ).with_loaded(loaded_places)
    assert there.places == {"m": (place(3, stamp=7), place(2)), "n": (place(1, name="n"),)}


def test_keeping_0_keeps_all() -> None:
    assert versions_of(plan(found(1, 2, 3, 4), {}, {}, NOBODY, keep=0)) == (["4", "3", "2", "1"], set())


def test_the_default_is_the_one_wished_for_then_the_labelled_then_the_highest() -> None:
    assert choose_default(["9", "10", "2"], {}, None) == "10"
    assert choose_default(["9", "10"], {"default": "9"}, None) == "9"
    assert choose_default(["9", "10"], {"default": "9"}, "10") == "10"
    assert choose_default(["9", "10"], {"default": "3"}, "4") == "10"


numbers = st.sets(st.integers(1, 9), max_size=6)


@given(there=numbers, now=numbers, bad=numbers, keep=st.integers(0, 3))
def test_doing_what_was_decided_leaves_nothing_to_do_and_never_fewer_than_could_serve(
    there: set[int], now: set[int], bad: set[int], keep: int
) -> None:
    """Load as planned, fail where it fails, until nothing is left: then the newest good ones are loaded."""
    catalogue, serving = found(*there), loaded(*now)
    failed: dict[Key, tuple[int, ...]] = {}
    while (todo := plan(catalogue, serving, failed, NOBODY, keep=keep)).load:
        first = todo.load[0]
        (failed if int(first.version or 0) in bad else serving)[first.key] = first.stamp
    kept = {int(version) for _, version in serving.keys() - todo.unload}
    good = sorted(there - (bad - now), reverse=True)
    assert kept == set(good[:keep] if keep else good)

import sys
from datetime import timedelta

from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot
from services.management import diff
from tests.support.fakes import EPOCH

PONYO = Person(id="p1", name="Ponyo", age="5", films=("/films/m1",))
SOSUKE = Person(id="p2", name="Sosuke", age="5", films=("/films/m1",))
ONLY_THE_ORDER = ["  the order of the movies"]


def make_movie(
    id: str = "m1", title: str = "Ponyo", *people: Person, rt_score: str = "91"
) -> Movie:
    return Movie(id=id, title=title, rt_score=rt_score, people=people)


def make_snapshot(*movies: Movie, later: float = 0) -> Snapshot:
    return Snapshot(EPOCH + timedelta(seconds=later), movies)


def describe(before: Snapshot, after: Snapshot, max_width: int = sys.maxsize) -> list[str]:
    return diff.describe(before, after, max_width)


def test_snapshots_that_differ_only_in_time_have_no_movies_or_people_that_differ() -> None:
    movie = make_movie("m1", "Ponyo", PONYO)

    assert describe(make_snapshot(movie), make_snapshot(movie, later=60)) == ONLY_THE_ORDER


def test_added_and_removed_movies_are_listed() -> None:
    unchanged, removed, added = make_movie("m1", "A"), make_movie("m2", "B"), make_movie("m3", "C")

    lines = describe(make_snapshot(unchanged, removed), make_snapshot(added, unchanged))

    assert lines == ["movies: 1 added, 1 removed", "  + C", "  - B"]


def test_changed_fields_of_a_movie_are_listed() -> None:
    before, after = make_movie(), make_movie(title="Gake no ue no Ponyo", rt_score="92")

    assert describe(make_snapshot(before), make_snapshot(after)) == [
        "movies: 1 changed",
        "  ~ Gake no ue no Ponyo",
        "      title: 'Ponyo' → 'Gake no ue no Ponyo'",
        "      rt_score: '91' → '92'",
    ]


def test_long_texts_are_shortened() -> None:
    before, after = make_movie(), make_movie(title="Gake no ue no Ponyo")

    lines = describe(make_snapshot(before), make_snapshot(after), 10)

    assert lines[-1] == "      title: 'Ponyo' → 'Gake no …"


def test_ids_are_compared_case_insensitively() -> None:
    lines = describe(make_snapshot(make_movie("m1")), make_snapshot(make_movie("M1")))

    assert lines == ["movies: 1 changed", "  ~ Ponyo", "      id: 'm1' → 'M1'"]


def test_an_added_person_is_a_change_of_the_movie() -> None:
    before, after = make_movie("m1", "Ponyo", PONYO), make_movie("m1", "Ponyo", PONYO, SOSUKE)

    assert describe(make_snapshot(before), make_snapshot(after)) == [
        "movies: 1 changed",
        "  ~ Ponyo",
        "      people: + Sosuke",
        "people: 1 added",
        "  + Sosuke",
    ]


def test_a_changed_person_is_listed_once_and_not_as_a_change_of_their_movies() -> None:
    changed = Person(id="P1", name="Ponyo", age="6", films=("/films/m1",))
    before = [make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO)]
    after = [make_movie("m1", "A", changed), make_movie("m2", "B", changed)]

    assert describe(make_snapshot(*before), make_snapshot(*after)) == [
        "people: 1 changed",
        "  ~ Ponyo",
        "      id: 'p1' → 'P1'",
        "      age: '5' → '6'",
    ]


def test_a_person_in_no_movie_any_more_is_removed() -> None:
    before = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO))
    in_one = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B"))
    in_none = make_snapshot(make_movie("m1", "A"), make_movie("m2", "B"))

    removed = ["people: 1 removed", "  - Ponyo"]
    assert not any(line.startswith("people: ") for line in describe(before, in_one))
    assert describe(before, in_none)[-2:] == removed


def test_movies_in_another_order_do_not_differ() -> None:
    one, two = make_movie("m1", "A"), make_movie("m2", "B")
    before, after = make_snapshot(one, two), make_snapshot(two, one)

    assert describe(before, after) == ONLY_THE_ORDER
    assert before.digest != after.digest

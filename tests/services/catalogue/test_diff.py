from datetime import timedelta

from services.catalogue.diff import Change, CollectionDiff, FieldChange, compare
from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot
from tests.support.fakes import EPOCH

EMPTY = CollectionDiff((), (), ())

PONYO = Person(id="p1", name="Ponyo", age="5", films=("/films/m1",))
SOSUKE = Person(id="p2", name="Sosuke", age="5", films=("/films/m1",))


def make_movie(
    id: str = "m1", title: str = "Ponyo", *people: Person, rt_score: str = "91"
) -> Movie:
    return Movie(id=id, title=title, rt_score=rt_score, people=people)


def make_snapshot(*movies: Movie, later: float = 0) -> Snapshot:
    return Snapshot(EPOCH + timedelta(seconds=later), movies)


def test_snapshots_that_differ_only_in_time_have_an_empty_diff() -> None:
    movie = make_movie("m1", "Ponyo", PONYO)

    difference = compare(make_snapshot(movie), make_snapshot(movie, later=60))

    assert difference.is_empty


def test_added_and_removed_movies_are_listed() -> None:
    unchanged, removed, added = make_movie("m1", "A"), make_movie("m2", "B"), make_movie("m3", "C")

    difference = compare(make_snapshot(unchanged, removed), make_snapshot(added, unchanged))

    assert difference.movies == CollectionDiff(added=("C",), removed=("B",), changed=())
    assert difference.people == EMPTY
    assert not difference.is_empty


def test_changed_fields_of_a_movie_are_listed() -> None:
    before, after = make_movie(), make_movie(title="Gake no ue no Ponyo", rt_score="92")

    difference = compare(make_snapshot(before), make_snapshot(after))

    fields = (
        FieldChange("title", "Ponyo", "Gake no ue no Ponyo"),
        FieldChange("rt_score", "91", "92"),
    )
    assert difference.movies == CollectionDiff((), (), (Change("Gake no ue no Ponyo", fields),))


def test_ids_are_compared_case_insensitively() -> None:
    difference = compare(make_snapshot(make_movie("m1")), make_snapshot(make_movie("M1")))

    field = FieldChange("id", "m1", "M1")
    assert difference.movies == CollectionDiff((), (), (Change("Ponyo", (field,)),))


def test_an_added_person_is_a_change_of_the_movie() -> None:
    before, after = make_movie("m1", "Ponyo", PONYO), make_movie("m1", "Ponyo", PONYO, SOSUKE)

    difference = compare(make_snapshot(before), make_snapshot(after))

    field = FieldChange("people", ("Ponyo",), ("Ponyo", "Sosuke"))
    assert difference.movies == CollectionDiff((), (), (Change("Ponyo", (field,)),))
    assert difference.people == CollectionDiff(added=("Sosuke",), removed=(), changed=())


def test_a_changed_person_is_listed_once_and_not_as_a_change_of_their_movies() -> None:
    changed = Person(id="P1", name="Ponyo", age="6", films=("/films/m1",))
    before = [make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO)]
    after = [make_movie("m1", "A", changed), make_movie("m2", "B", changed)]

    difference = compare(make_snapshot(*before), make_snapshot(*after))

    fields = (FieldChange("id", "p1", "P1"), FieldChange("age", "5", "6"))
    assert difference.people == CollectionDiff((), (), (Change("Ponyo", fields),))
    assert difference.movies == EMPTY


def test_a_person_in_no_movie_any_more_is_removed() -> None:
    before = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO))
    in_one = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B"))
    in_none = make_snapshot(make_movie("m1", "A"), make_movie("m2", "B"))

    assert compare(before, in_one).people == EMPTY
    assert compare(before, in_none).people == CollectionDiff((), ("Ponyo",), ())


def test_movies_in_another_order_have_an_empty_diff() -> None:
    one, two = make_movie("m1", "A"), make_movie("m2", "B")
    before, after = make_snapshot(one, two), make_snapshot(two, one)

    assert compare(before, after).is_empty
    assert before.digest != after.digest

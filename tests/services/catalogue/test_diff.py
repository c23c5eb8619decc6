"""What is said to have changed between two snapshots."""

from datetime import timedelta

from services.catalogue.diff import Altered, Difference, Edit, compare
from services.catalogue.entities import Movie, Person
from services.catalogue.snapshot import Snapshot
from tests.support.fakes import EPOCH

NONE = Difference((), (), ())

PONYO = Person(id="p1", name="Ponyo", age="5", films=("/films/m1",))
SOSUKE = Person(id="p2", name="Sosuke", age="5", films=("/films/m1",))


def make_movie(
    id: str = "m1", title: str = "Ponyo", *people: Person, rt_score: str = "91"
) -> Movie:
    return Movie(id=id, title=title, rt_score=rt_score, people=people)


def make_snapshot(*movies: Movie, later: float = 0) -> Snapshot:
    return Snapshot(EPOCH + timedelta(seconds=later), movies)


def test_later_is_not_another() -> None:
    movie = make_movie("m1", "Ponyo", PONYO)

    changed = compare(make_snapshot(movie), make_snapshot(movie, later=60))

    assert changed.are_none


def test_movies_that_came_and_went() -> None:
    stays, goes, comes = make_movie("m1", "A"), make_movie("m2", "B"), make_movie("m3", "C")

    changed = compare(make_snapshot(stays, goes), make_snapshot(comes, stays))

    assert changed.movies == Difference(added=("C",), removed=("B",), altered=())
    assert changed.people == NONE
    assert not changed.are_none


def test_a_movie_with_other_values() -> None:
    before, after = make_movie(), make_movie(title="Gake no ue no Ponyo", rt_score="92")

    changed = compare(make_snapshot(before), make_snapshot(after))

    edits = (Edit("title", "Ponyo", "Gake no ue no Ponyo"), Edit("rt_score", "91", "92"))
    assert changed.movies == Difference((), (), (Altered("Gake no ue no Ponyo", edits),))


def test_an_id_in_upper_case_is_the_same() -> None:
    changed = compare(make_snapshot(make_movie("m1")), make_snapshot(make_movie("M1")))

    edit = Edit("id", "m1", "M1")
    assert changed.movies == Difference((), (), (Altered("Ponyo", (edit,)),))


def test_a_movie_with_other_people() -> None:
    before, after = make_movie("m1", "Ponyo", PONYO), make_movie("m1", "Ponyo", PONYO, SOSUKE)

    changed = compare(make_snapshot(before), make_snapshot(after))

    edit = Edit("people", ("Ponyo",), ("Ponyo", "Sosuke"))
    assert changed.movies == Difference((), (), (Altered("Ponyo", (edit,)),))
    assert changed.people == Difference(added=("Sosuke",), removed=(), altered=())


def test_a_person_with_other_values_is_told_of_once_and_not_with_their_movies() -> None:
    older = Person(id="P1", name="Ponyo", age="6", films=("/films/m1",))
    before = [make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO)]
    after = [make_movie("m1", "A", older), make_movie("m2", "B", older)]

    changed = compare(make_snapshot(*before), make_snapshot(*after))

    edits = (Edit("id", "p1", "P1"), Edit("age", "5", "6"))
    assert changed.people == Difference((), (), (Altered("Ponyo", edits),))
    assert changed.movies == NONE


def test_somebody_in_no_movie_any_more_is_removed() -> None:
    before = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B", PONYO))
    once = make_snapshot(make_movie("m1", "A", PONYO), make_movie("m2", "B"))
    never = make_snapshot(make_movie("m1", "A"), make_movie("m2", "B"))

    assert compare(before, once).people == NONE
    assert compare(before, never).people == Difference((), ("Ponyo",), ())


def test_the_order_of_the_movies_is_no_change_of_theirs() -> None:
    one, two = make_movie("m1", "A"), make_movie("m2", "B")
    before, after = make_snapshot(one, two), make_snapshot(two, one)

    assert compare(before, after).are_none
    assert before.digest != after.digest

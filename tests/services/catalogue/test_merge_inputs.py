"""What the merge makes of lists and links that the Ghibli API sends, or might send."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from services.catalogue.merge import Catalogue, build
from services.catalogue.snapshot import MAX_BODY_BYTES, Snapshot
from services.exceptions import Reason, UpstreamError
from tests.support.scripted_upstream import CATALOGUE, film, person


def catalogue_of(*, films: Any = CATALOGUE.films, people: Any = CATALOGUE.people) -> Catalogue:
    return build(films, people)


def failure(**lists: Any) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        catalogue_of(**lists)
    return caught.value


@pytest.mark.parametrize("collection", ["films", "people"])
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, Reason.SCHEMA),
        ("x", Reason.SCHEMA),
        (1, Reason.SCHEMA),
        (None, Reason.SCHEMA),
        ([1], Reason.SCHEMA),
        ([None], Reason.SCHEMA),
        ([[]], Reason.SCHEMA),
        ([{}], Reason.SCHEMA),
        ([{"id": "1"}], Reason.SCHEMA),
        ([{"title": "Ponyo", "name": "Ponyo"}], Reason.SCHEMA),
        ([{"id": "", "title": "Ponyo", "name": "Ponyo"}], Reason.SCHEMA),
        ([{"id": "1", "title": "", "name": ""}], Reason.SCHEMA),
        ([{"id": "1", "title": ["Ponyo"], "name": {}}], Reason.SCHEMA),
        ([{"id": "1", "title": True, "name": False}], Reason.SCHEMA),
        ([], Reason.EMPTY),
        (
            [{"id": f"{number}", "title": "Ponyo", "name": "Ponyo"} for number in range(250)],
            Reason.TRUNCATED,
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_rejects_lists_of_anything_but_objects_with_ids_and_names(
    collection: str, payload: object, reason: Reason
) -> None:
    assert failure(**{collection: payload}).reason == reason


@pytest.mark.parametrize("collection", ["films", "people"])
def test_merges_identical_duplicates(collection: str) -> None:
    objects = getattr(CATALOGUE, collection)

    catalogue = catalogue_of(**{collection: [*objects, objects[0]]})

    assert catalogue.duplicates == 1
    assert len(catalogue.movies) == 22
    assert sum(len(movie.people) for movie in catalogue.movies) == 59


@pytest.mark.parametrize("collection", ["films", "people"])
def test_rejects_different_objects_with_one_id(collection: str) -> None:
    objects = getattr(CATALOGUE, collection)
    twin = objects[0] | {"title": "Another", "name": "Another"}

    assert failure(**{collection: [*objects, twin]}).reason == Reason.SCHEMA


# Who appears in which movie

ID = film()["id"]
UNKNOWN_FILM = "https://ghibliapi.vercel.app/films/00000000-0000-0000-0000-000000000000"


def people_of_the_first_film(**lists: object) -> list[str]:
    return [one.name for one in catalogue_of(**lists).movies[0].people]


def with_links(links: object) -> list[object]:
    """Return a list of one person with these links to films."""
    return [person(name="Pazu", films=links)]


@pytest.mark.parametrize(
    "link",
    [
        f"https://ghibliapi.herokuapp.com/films/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}",
        f"http://127.0.0.1:3900/films/{ID}",
        f"htps://ghibliapi.herokuapp.com/films/{ID}",
        f"/films/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}/",
        f"https://ghibliapi.vercel.app/films/{ID.upper()}",
        f"https://ghibliapi.vercel.app/FILMS/{ID}",
        f"https://ghibliapi.vercel.app/films/{ID}?fields=id#top",
    ],
)
def test_finds_the_film_by_the_id_in_the_link(link: str) -> None:
    assert people_of_the_first_film(people=with_links([link])) == ["Pazu"]


@pytest.mark.parametrize("id", [ID.upper(), "e2cfaa78-fb19-11eb-9a03-0242ac130003", "castle"])
def test_accepts_film_ids_of_any_form(id: str) -> None:
    people = with_links([f"https://ghibliapi.herokuapp.com/films/{id.lower()}"])

    [movie] = catalogue_of(films=[film(id=id)], people=people).movies

    assert (movie.id, [one.name for one in movie.people]) == (id, ["Pazu"])


@pytest.mark.parametrize(
    "links",
    [
        None,
        "",
        [],
        [""],
        [None, 1, {}],
        {},
        7,
        "https://ghibliapi.vercel.app/films/",
        ["https://ghibliapi.vercel.app/films/"],
        ["https://ghibliapi.vercel.app/films"],
        [f"https://ghibliapi.vercel.app/people/{ID}"],
    ],
    ids=str,
)
def test_a_person_without_links_to_films_appears_in_none(links: object) -> None:
    assert people_of_the_first_film(people=with_links(links)) == []


def test_a_person_without_the_films_field_appears_in_none() -> None:
    without_films = {name: text for name, text in person().items() if name != "films"}

    assert people_of_the_first_film(people=[without_films]) == []


def test_accepts_a_single_link_in_place_of_a_list() -> None:
    assert people_of_the_first_film(
        people=with_links(f"https://ghibliapi.vercel.app/films/{ID}")
    ) == ["Pazu"]


def test_a_person_who_links_to_a_film_twice_appears_once() -> None:
    link = f"https://ghibliapi.vercel.app/films/{ID}"
    assert people_of_the_first_film(people=with_links([link, link.upper(), f"{link}/"])) == ["Pazu"]


@pytest.mark.parametrize(
    "listed", [["https://ghibliapi.herokuapp.com/people/"], [person(5)["url"]], None]
)
def test_ignores_the_people_that_a_film_lists(listed: object) -> None:
    films, people = [film(people=listed)], with_links([film()["url"]])

    assert people_of_the_first_film(films=films, people=people) == ["Pazu"]


def test_skips_and_counts_links_to_unknown_films() -> None:
    catalogue = catalogue_of(people=with_links([UNKNOWN_FILM, film()["url"]]))

    assert catalogue.unknown_films == 1
    assert [one.name for one in catalogue.movies[0].people] == ["Pazu"]


def test_rejects_people_who_link_to_unknown_films_only() -> None:
    people = [person(0, films=[UNKNOWN_FILM]), person(1, films=[UNKNOWN_FILM])]

    assert failure(people=people).reason == Reason.TORN


@pytest.mark.parametrize(
    "link",
    ["/films?" * 10_000 + "\n\n", "/films/" * 10_000 + " ", "/films/" + "f" * 100_000 + " /"],
)
def test_reads_long_links_without_delay(link: str) -> None:
    started = time.monotonic()

    catalogue_of(people=with_links([link]))

    assert time.monotonic() - started < 1


# The size of the movies, each of which repeats its people


def in_all_films(species: str) -> dict[str, Any]:
    """Return lists whose person appears in all of 249 films."""
    films = [film(id=f"f{number}") for number in range(249)]
    links = [f"https://ghibliapi.vercel.app/films/{each['id']}" for each in films]
    return {"films": films, "people": [person(species=species, films=links)]}


def test_rejects_people_who_are_too_large_for_all_their_films() -> None:
    assert failure(**in_all_films("x" * 32 * 1024)).reason == Reason.TOO_LARGE


def test_accepts_movies_up_to_the_limit_of_the_shared_store() -> None:
    def size(length: int) -> int:
        movies = catalogue_of(**in_all_films("x" * length)).movies
        return len(Snapshot(datetime.now(UTC), movies).body)

    around = size(0)
    per_character = size(1) - around
    longest = (MAX_BODY_BYTES - around) // per_character

    assert MAX_BODY_BYTES * 0.99 < size(longest - 32) <= MAX_BODY_BYTES
    assert failure(**in_all_films("x" * (longest + 1))).reason == Reason.TOO_LARGE

"""The merge, compared with a naive implementation, and its rules one by one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalogue import bundled, merge
from services.catalogue.entities import Film, Person
from services.exceptions import Reason, UpstreamError

CASTLE, PONYO = "2baf70d1-42bb-4437-b551-e5fed5a87abe", "758bf02e-3122-46e0-884e-67cf83df1786"
SITE = "https://ghibliapi.herokuapp.com"


def make_film(**fields: Any) -> dict[str, Any]:
    return {"id": CASTLE, "title": "Castle in the Sky", "url": f"{SITE}/films/{CASTLE}"} | fields


def make_person(**fields: Any) -> dict[str, Any]:
    return {"id": "pazu", "name": "Pazu", "films": [f"{SITE}/films/{CASTLE}"]} | fields


def cast(films: list[Any], people: list[Any]) -> dict[str, list[str]]:
    movies = merge.build(films, people).movies
    return {movie.title: [person.name for person in movie.people] for movie in movies}


hosts = st.sampled_from(["https://a.example", "http://b.example:3000", "htps://c.example", ""])
film_ids = st.sampled_from([f"f{n}" for n in range(6)])
links = st.builds(
    lambda host, film_id, upper, end: f"{host}/films/{film_id.upper() if upper else film_id}{end}",
    hosts,
    film_ids,
    st.booleans(),
    st.sampled_from(["", "/", "?x=1", "#top"]),
)
noise = st.sampled_from(["", "https://a.example/films/", "https://a.example/people/f1", "f1"])


def naive_cast(films: list[Film], people: list[Person]) -> list[tuple[str, list[str]]]:
    """For each film, go through the links of all people."""
    found = []
    for film in films:
        names = []
        for person in people:
            for link in person.films:
                path = link.split("?")[0].split("#")[0].rstrip("/").split("/")
                if path[-2:-1] == ["films"] and path[-1].lower() == film.id.lower():
                    names.append(person.id)
                    break
        found.append((film.id, names))
    return found


@given(
    films=st.lists(film_ids, min_size=1, unique=True),
    people=st.lists(st.lists(links | noise, max_size=4), max_size=8),
)
def test_finds_the_same_people_as_a_naive_merge(films: list[str], people: list[list[str]]) -> None:
    film_list = [Film(id=film_id, title=film_id) for film_id in films]
    person_list = [
        Person(id=f"p{n}", name=f"p{n}", films=tuple(links)) for n, links in enumerate(people)
    ]
    expected = naive_cast(film_list, person_list)

    try:
        movies, _ = merge.merge(film_list, person_list)
    except UpstreamError:
        movies = ()
        assert not any(names for _, names in expected)
    assert [(m.id, [p.id for p in m.people]) for m in movies] == (expected if movies else [])


def test_movies_of_the_bundled_catalogue_have_their_people() -> None:
    facts = bundled.load()
    people = {m.title: len(m.people) for m in merge.build(facts.films, facts.people).movies}

    assert len(people) == 22
    assert {title: count for title, count in people.items() if count} == {
        "Castle in the Sky": 14,
        "My Neighbor Totoro": 10,
        "Kiki's Delivery Service": 6,
        "Porco Rosso": 1,
        "Whisper of the Heart": 2,
        "Princess Mononoke": 10,
        "Spirited Away": 2,
        "The Cat Returns": 6,
        "Ponyo": 1,
        "Arrietty": 1,
        "Earwig and the Witch": 6,
    }


def test_ignores_the_people_that_a_film_lists() -> None:
    films = [make_film(people=[f"{SITE}/people/muska"])]

    assert cast(films, [make_person()]) == {"Castle in the Sky": ["Pazu"]}


def test_people_who_share_a_url_stay_distinct() -> None:
    url = f"{SITE}/people/totoro"
    people = [make_person(id=name, name=name, url=url) for name in ("Totoro", "Chu", "Chibi")]

    assert cast([make_film()], people) == {"Castle in the Sky": ["Totoro", "Chu", "Chibi"]}


def test_a_person_in_two_films_is_in_both() -> None:
    films = [make_film(), make_film(id=PONYO, title="Ponyo")]
    person = make_person(films=[f"{SITE}/films/{PONYO}", f"{SITE}/films/{CASTLE}"])

    assert cast(films, [person]) == {"Castle in the Sky": ["Pazu"], "Ponyo": ["Pazu"]}


def test_a_film_linked_twice_by_a_person_has_the_person_once() -> None:
    person = make_person(films=[f"{SITE}/films/{CASTLE}", f"{SITE}/films/{CASTLE.upper()}/"])

    assert cast([make_film()], [person]) == {"Castle in the Sky": ["Pazu"]}


@pytest.mark.parametrize("films", [None, "", [], [f"{SITE}/films/"], [None, 7, {}], {"a": 1}])
def test_a_person_without_usable_links_is_in_no_film(films: object) -> None:
    assert cast([make_film()], [make_person(films=films)]) == {"Castle in the Sky": []}


def test_a_single_link_is_read_as_a_list() -> None:
    person = make_person(films=f"{SITE}/films/{CASTLE}")

    merged = merge.build([make_film()], [person]).movies[0]
    assert merged.people[0].films == (f"{SITE}/films/{CASTLE}",)


def test_ignores_and_counts_links_to_unknown_films() -> None:
    stranger = make_person(id="x", name="X", films=[f"{SITE}/films/{PONYO}"])
    built = merge.build([make_film()], [make_person(), stranger])

    assert built.unknown_films == 1
    assert [person.name for person in built.movies[0].people] == ["Pazu"]


def test_refuses_lists_that_do_not_belong_together() -> None:
    with pytest.raises(UpstreamError) as caught:
        merge.build([make_film()], [make_person(films=[f"{SITE}/films/{PONYO}"])])
    assert caught.value.reason is Reason.TORN


def test_drops_and_counts_exact_duplicates() -> None:
    built = merge.build([make_film(), make_film()], [make_person()])

    assert (len(built.movies), built.duplicates) == (1, 1)


@pytest.mark.parametrize("other", [{"title": "Another"}, {"id": CASTLE.upper()}])
def test_refuses_two_different_films_with_one_id(other: dict[str, str]) -> None:
    with pytest.raises(UpstreamError) as caught:
        merge.build([make_film(), make_film(**other)], [make_person()])
    assert caught.value.reason is Reason.SCHEMA


@pytest.mark.parametrize(
    ("films", "people", "reason"),
    [
        ([], [make_person()], Reason.EMPTY),
        ([make_film()], [], Reason.EMPTY),
        ({}, [make_person()], Reason.SCHEMA),
        ("x", [make_person()], Reason.SCHEMA),
        ([1], [make_person()], Reason.SCHEMA),
        ([None], [make_person()], Reason.SCHEMA),
        ([[]], [make_person()], Reason.SCHEMA),
        ([make_film(id="")], [make_person()], Reason.SCHEMA),
        ([make_film(title=None)], [make_person()], Reason.SCHEMA),
        ([make_film()], [make_person(name="")], Reason.SCHEMA),
        ([make_film()], [make_person(id=[1])], Reason.SCHEMA),
        ([make_film(id=str(n)) for n in range(250)], [make_person()], Reason.TRUNCATED),
    ],
)
def test_refuses_unusable_data_with_a_reason(films: object, people: object, reason: Reason) -> None:
    with pytest.raises(UpstreamError) as caught:
        merge.build(films, people)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("value", "expected"),
    [("124", "124"), (124, "124"), (7.5, "7.5"), (None, ""), (True, ""), (["124"], ""), ({}, "")],
)
def test_text_stays_numbers_become_text_and_anything_else_is_empty(
    value: object, expected: str
) -> None:
    built = merge.build([make_film(running_time=value)], [make_person()])

    assert built.movies[0].running_time == expected


def test_missing_fields_are_empty() -> None:
    movie = merge.build([{"id": "1", "title": "T"}], [{"id": "2", "name": "N"}]).movies[0]

    assert movie.director == movie.url == movie.rt_score == ""
    assert movie.people == ()

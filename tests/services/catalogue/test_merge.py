"""The merge, against a naive one that is plainly right, and its rules one by one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalogue import bundled, merge
from services.catalogue.entities import Film, Person
from services.exceptions import Reason, UpstreamError

CASTLE, PONYO = "2baf70d1-42bb-4437-b551-e5fed5a87abe", "758bf02e-3122-46e0-884e-67cf83df1786"
SITE = "https://ghibliapi.herokuapp.com"


def make_film(**given: Any) -> dict[str, Any]:
    return {"id": CASTLE, "title": "Castle in the Sky", "url": f"{SITE}/films/{CASTLE}"} | given


def make_person(**given: Any) -> dict[str, Any]:
    return {"id": "pazu", "name": "Pazu", "films": [f"{SITE}/films/{CASTLE}"]} | given


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
    """For each film, look through everybody's links by hand."""
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
def test_the_merge_finds_what_a_naive_one_finds(films: list[str], people: list[list[str]]) -> None:
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


def test_the_bundled_catalogue_gives_every_movie_its_people() -> None:
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


def test_the_broken_list_of_people_in_a_film_is_not_believed() -> None:
    films = [make_film(people=[f"{SITE}/people/muska"])]

    assert cast(films, [make_person()]) == {"Castle in the Sky": ["Pazu"]}


def test_people_who_share_a_url_are_still_themselves() -> None:
    url = f"{SITE}/people/totoro"
    people = [make_person(id=name, name=name, url=url) for name in ("Totoro", "Chu", "Chibi")]

    assert cast([make_film()], people) == {"Castle in the Sky": ["Totoro", "Chu", "Chibi"]}


def test_a_person_in_two_films_is_in_both() -> None:
    films = [make_film(), make_film(id=PONYO, title="Ponyo")]
    person = make_person(films=[f"{SITE}/films/{PONYO}", f"{SITE}/films/{CASTLE}"])

    assert cast(films, [person]) == {"Castle in the Sky": ["Pazu"], "Ponyo": ["Pazu"]}


def test_a_film_that_a_person_names_twice_holds_the_person_once() -> None:
    person = make_person(films=[f"{SITE}/films/{CASTLE}", f"{SITE}/films/{CASTLE.upper()}/"])

    assert cast([make_film()], [person]) == {"Castle in the Sky": ["Pazu"]}


@pytest.mark.parametrize("films", [None, "", [], [f"{SITE}/films/"], [None, 7, {}], {"a": 1}])
def test_no_usable_links_mean_no_films(films: object) -> None:
    assert cast([make_film()], [make_person(films=films)]) == {"Castle in the Sky": []}


def test_a_link_on_its_own_counts_like_a_list_of_one() -> None:
    person = make_person(films=f"{SITE}/films/{CASTLE}")

    merged = merge.build([make_film()], [person]).movies[0]
    assert merged.people[0].films == (f"{SITE}/films/{CASTLE}",)


def test_a_link_to_an_unknown_film_is_counted_and_left_out() -> None:
    stranger = make_person(id="x", name="X", films=[f"{SITE}/films/{PONYO}"])
    built = merge.build([make_film()], [make_person(), stranger])

    assert built.unknown_films == 1
    assert [person.name for person in built.movies[0].people] == ["Pazu"]


def test_lists_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UpstreamError) as caught:
        merge.build([make_film()], [make_person(films=[f"{SITE}/films/{PONYO}"])])
    assert caught.value.reason is Reason.TORN


def test_a_film_sent_twice_alike_is_one_film_and_counted() -> None:
    built = merge.build([make_film(), make_film()], [make_person()])

    assert (len(built.movies), built.duplicates) == (1, 1)


@pytest.mark.parametrize("other", [{"title": "Another"}, {"id": CASTLE.upper()}])
def test_two_films_with_one_id_are_refused(other: dict[str, str]) -> None:
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
def test_poison_is_refused_with_its_reason(films: object, people: object, reason: Reason) -> None:
    with pytest.raises(UpstreamError) as caught:
        merge.build(films, people)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("given", "expected"),
    [("124", "124"), (124, "124"), (7.5, "7.5"), (None, ""), (True, ""), (["124"], ""), ({}, "")],
)
def test_a_text_stays_and_what_is_none_is_lacking(given: object, expected: str) -> None:
    built = merge.build([make_film(running_time=given)], [make_person()])

    assert built.movies[0].running_time == expected


def test_what_the_api_does_not_say_is_empty() -> None:
    movie = merge.build([{"id": "1", "title": "T"}], [{"id": "2", "name": "N"}]).movies[0]

    assert movie.director == movie.url == movie.rt_score == ""
    assert movie.people == ()

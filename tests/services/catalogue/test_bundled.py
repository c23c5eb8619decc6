from collections import Counter
from datetime import UTC, datetime

import pytest

from services.catalogue.bundled import load, parse

CATALOGUE = load()
FILM_KEYS = [
    "id",
    "title",
    "original_title",
    "original_title_romanised",
    "image",
    "movie_banner",
    "description",
    "director",
    "producer",
    "release_date",
    "running_time",
    "rt_score",
    "people",
    "species",
    "locations",
    "vehicles",
    "url",
]
PERSON_KEYS = ["id", "name", "gender", "age", "eye_color", "hair_color", "films", "species", "url"]

SMALL = """
timestamp = 2026-11-23T00:00:00Z
site = "https://api.test"

[species]
Cat = "species-1"

[vehicles]
Broom = "vehicle-1"

[[film]]
id = "film-1"
title = "Kiki"
original_title = ""
original_title_romanised = ""
director = ""
producer = ""
release_date = ""
running_time = ""
rt_score = ""
image = ""
movie_banner = ""
description = ""
listed_people = ["Jiji"]
species = ["Cat"]
vehicles = ["Broom"]

[[person]]
id = "person-1"
name = "Jiji"
gender = ""
age = ""
eye_color = ""
hair_color = ""
species = "Cat"
appears_in = ["Kiki"]
"""


def test_contains_every_film_and_every_person() -> None:
    assert len(CATALOGUE.films) == 22
    assert len(CATALOGUE.people) == 57


def test_contains_the_timestamp_of_its_data() -> None:
    assert CATALOGUE.timestamp == datetime(2026, 11, 23, tzinfo=UTC)


def test_has_the_keys_of_the_ghibli_api_in_their_order() -> None:
    assert all(list(film) == FILM_KEYS for film in CATALOGUE.films)
    assert all(list(person) == PERSON_KEYS for person in CATALOGUE.people)


def test_films_are_ordered_by_year() -> None:
    years = [film["release_date"] for film in CATALOGUE.films]
    assert years == sorted(years)
    assert (years[0], years[-1]) == ("1986", "2021")


def test_every_value_is_text_or_a_list() -> None:
    for record in [*CATALOGUE.films, *CATALOGUE.people]:
        assert all(isinstance(value, str | list) for value in record.values())


@pytest.mark.parametrize("records", [CATALOGUE.films, CATALOGUE.people])
def test_ids_are_unique(records: list[dict[str, str]]) -> None:
    assert len({record["id"] for record in records}) == len(records)


def test_every_film_has_a_short_description_of_its_own() -> None:
    descriptions = [film["description"] for film in CATALOGUE.films]
    assert all(20 < len(description) <= 300 for description in descriptions)
    assert len(set(descriptions)) == 22


def test_every_film_linked_by_a_person_exists() -> None:
    urls = {film["url"] for film in CATALOGUE.films}
    named = [url for person in CATALOGUE.people for url in person["films"]]
    assert set(named) <= urls
    assert len(named) == 59


def test_two_people_are_in_two_films_each() -> None:
    twice = {person["name"] for person in CATALOGUE.people if len(person["films"]) == 2}
    assert twice == {"Renaldo Moon aka Moon aka Muta", "Baron Humbert von Gikkingen"}


def test_three_totoros_share_one_url() -> None:
    shared = Counter(person["url"] for person in CATALOGUE.people).most_common(1)[0]
    totoros = [person["name"] for person in CATALOGUE.people if person["url"] == shared[0]]
    assert totoros == ["Totoro", "Chu Totoro", "Chibi Totoro"]
    assert len({person["url"] for person in CATALOGUE.people}) == 55


def test_films_link_people_by_id_even_if_their_url_differs() -> None:
    ids = {person["id"] for person in CATALOGUE.people}
    [totoro] = [film for film in CATALOGUE.films if film["title"] == "My Neighbor Totoro"]
    listed = [url.rpartition("/")[2] for url in totoro["people"]]
    assert len(listed) == 10
    assert set(listed) <= ids


def test_a_film_without_listed_people_has_the_bare_link() -> None:
    bare = [film for film in CATALOGUE.films if film["people"][0].endswith("/people/")]
    assert len(bare) == 17
    assert all(film["people"] == ["https://ghibliapi.herokuapp.com/people/"] for film in bare)


def test_links_are_built_from_names() -> None:
    timestamp, [film], [person] = parse(SMALL)
    assert timestamp == datetime(2026, 11, 23, tzinfo=UTC)
    assert film["url"] == "https://api.test/films/film-1"
    assert film["people"] == ["https://api.test/people/person-1"]
    assert film["species"] == ["https://api.test/species/species-1"]
    assert film["vehicles"] == ["https://api.test/vehicles/vehicle-1"]
    assert film["locations"] == ["https://api.test/locations/"]
    assert person["films"] == ["https://api.test/films/film-1"]
    assert person["species"] == "https://api.test/species/species-1"
    assert person["url"] == "https://api.test/people/person-1"


@pytest.mark.parametrize(
    ("known", "unknown", "message"),
    [
        ('appears_in = ["Kiki"]', 'appears_in = ["Koko"]', "no 'Koko' among its films"),
        ('listed_people = ["Jiji"]', 'listed_people = ["Lily"]', "no 'Lily' among its people"),
        ('\nspecies = "Cat"', '\nspecies = "Dog"', "no 'Dog' among its species"),
        ('species = ["Cat"]', 'species = ["Dog"]', "no 'Dog' among its species"),
        ('vehicles = ["Broom"]', 'vehicles = ["Mop"]', "no 'Mop' among its vehicles"),
    ],
)
def test_refuses_a_name_that_refers_to_nothing(known: str, unknown: str, message: str) -> None:
    assert known in SMALL
    with pytest.raises(ValueError, match=message):
        parse(SMALL.replace(known, unknown))

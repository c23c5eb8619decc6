"""Every kind of defect, each in data that has no other; and those of the real data."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from services.catalogue import bundled, entities
from services.catalogue.audit import MEANINGS, SENTINELS, Defect, Kind, find

SITE = "https://api.test"
FACTS = bundled.load()
REAL = find(FACTS.films, FACTS.people)


def make_film(id: str = "f1", **values: object) -> dict[str, Any]:
    texts = dict.fromkeys(entities.FILM_FIELDS, "something")
    links = {"people": [], "species": [f"{SITE}/species/s1"], "locations": [], "vehicles": []}
    return {**texts, "id": id, "url": f"{SITE}/films/{id}", **links, **values}


def make_person(id: str = "p1", **values: object) -> dict[str, Any]:
    texts = dict.fromkeys(entities.PERSON_FIELDS, "something")
    links = {"films": [], "species": f"{SITE}/species/s1", "url": f"{SITE}/people/{id}"}
    return {**texts, "id": id, **links, **values}


def made(
    *,
    films: list[dict[str, Any]] | None = None,
    film: Mapping[str, Any] | None = None,
    person: Mapping[str, Any] | None = None,
) -> list[Defect]:
    """The defects of one film and one person, sound but for what is given."""
    return find(films or [make_film(**(film or {}))], [make_person(**(person or {}))])


def without(item: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != field}


def test_sound_data_has_no_defects() -> None:
    film = make_film(people=[f"{SITE}/people/p1"])
    person = make_person(films=[f"{SITE}/films/f1"])

    assert find([film], [person]) == []


def test_other_hosts_slashes_and_upper_case_are_no_defects() -> None:
    film = make_film("AB", people=["http://elsewhere.test/api/people/P1/"])
    person = make_person(films=["https://mirror.test/films/ab"])

    assert find([film], [person]) == []


@pytest.mark.parametrize("field", ["title", "people", "url"])
def test_a_field_that_is_not_there(field: str) -> None:
    found = find([without(make_film(), field)], [make_person()])

    assert Defect(Kind.MISSING_FIELD, "films", "f1", found[-1].name, field, "") in found
    assert {defect.kind for defect in found} <= {Kind.MISSING_FIELD, Kind.UNUSABLE}


@pytest.mark.parametrize(
    ("film", "field", "detail"),
    [
        ({"rt_score": 95}, "rt_score", "a number instead of text"),
        ({"rt_score": 9.5}, "rt_score", "a number instead of text"),
        ({"director": None}, "director", "null instead of text"),
        ({"director": True}, "director", "true or false instead of text"),
        ({"director": []}, "director", "a list instead of text"),
        ({"url": {}}, "url", "an object instead of text"),
        ({"people": None}, "people", "null instead of a list"),
        ({"people": f"{SITE}/people/p1"}, "people", "text instead of a list"),
        ({"vehicles": [7]}, "vehicles", "a number among the links"),
    ],
)
def test_a_value_of_the_wrong_type(film: dict[str, object], field: str, detail: str) -> None:
    found = [defect for defect in made(film=film) if defect.kind is not Kind.ONE_SIDED]

    assert found == [Defect(Kind.WRONG_TYPE, "films", "f1", "something", field, detail)]


def test_a_list_of_species_where_a_person_has_one() -> None:
    [defect] = made(person={"species": [f"{SITE}/species/s1"]})

    assert defect[:2] == (Kind.WRONG_TYPE, "people")
    assert defect.detail == "a list instead of text"


@pytest.mark.parametrize("value", [*SENTINELS, "NA", " Unknown ", "TODO", "N/A"])
def test_a_word_that_stands_for_nothing(value: str) -> None:
    defect = Defect(Kind.SENTINEL, "people", "p1", "something", "age", repr(value))

    assert made(person={"age": value}) == [defect]


@pytest.mark.parametrize("value", ["Nana", "0", "no one", "Nonetheless"])
def test_a_word_that_only_looks_like_one(value: str) -> None:
    assert made(person={"age": value}) == []


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (f"{SITE}/people/", Kind.BARE_LINK),
        (f"{SITE}/people", Kind.BARE_LINK),
        (f"{SITE}/people/p2", Kind.DANGLING_LINK),
        (f"{SITE}/films/p1", Kind.NO_LINK),
        ("htps://api.test/people/p2", Kind.NO_LINK),
        ("people/p2", Kind.NO_LINK),
        ("p2", Kind.NO_LINK),
        ("", Kind.SENTINEL),
        ("TODO", Kind.SENTINEL),
    ],
)
def test_a_link_that_leads_to_no_object(link: str, kind: Kind) -> None:
    [defect] = made(film={"people": [link]})

    assert (defect.kind, defect.field) == (kind, "people")
    assert link in defect.detail


def test_a_link_whose_collection_is_not_at_hand_cannot_dangle() -> None:
    assert made(film={"vehicles": [f"{SITE}/vehicles/unheard-of"]}) == []


def test_the_same_link_twice() -> None:
    film = {"vehicles": [f"{SITE}/vehicles/v1"] * 2}

    [defect] = made(film=film)

    assert (defect.kind, defect.field) == (Kind.DUPLICATE, "vehicles")
    assert defect.detail == f"2 times {SITE}/vehicles/v1"


def test_the_same_film_twice_alike() -> None:
    [defect] = made(films=[make_film("f1"), make_film("f1")])

    assert (defect.kind, defect.field) == (Kind.DUPLICATE, "id")
    assert defect.detail.endswith("alike")


def test_two_films_with_one_id_are_more_than_totoro_can_mend() -> None:
    films = [make_film("f1"), make_film("F1", title="Another", url=f"{SITE}/films/f1")]

    unusable, duplicate = made(films=films)

    assert unusable.kind is Kind.UNUSABLE
    assert unusable.detail == "two different film objects share one id (schema)"
    assert (duplicate.kind, duplicate.name) == (Kind.DUPLICATE, "Another")
    assert duplicate.detail.endswith("in conflict")


def test_a_url_that_is_anothers() -> None:
    films = [make_film("f1", title="One"), make_film("f2", title="Two", url=f"{SITE}/films/f1")]

    assert made(films=films) == [
        Defect(Kind.SHARED_URL, "films", "f1", "One", "url", "also that of Two"),
        Defect(Kind.SHARED_URL, "films", "f2", "Two", "url", "also that of One"),
        Defect(Kind.FOREIGN_URL, "films", "f2", "Two", "url", "it ends in f1"),
    ]


def test_a_film_that_does_not_list_who_says_to_be_in_it() -> None:
    [defect] = made(person={"films": [f"{SITE}/films/f1"], "name": "Haku"})

    assert defect == Defect(Kind.ONE_SIDED, "films", "f1", "something", "people", "1: Haku")


def test_a_person_who_does_not_list_a_film_that_lists_them() -> None:
    [defect] = made(film={"people": [f"{SITE}/people/p1"], "title": "Ponyo"})

    assert defect == Defect(Kind.ONE_SIDED, "people", "p1", "something", "films", "1: Ponyo")


@pytest.mark.parametrize("films", [None, {}, [], "x", [1], [[]], [None]])
def test_lists_that_are_none_are_unusable(films: object) -> None:
    [defect] = find(films, [make_person()])

    assert defect.kind is Kind.UNUSABLE


def test_an_object_without_a_name_is_told_by_its_place() -> None:
    films = [make_film("f1"), make_film("f2", title="")]

    assert {defect.name for defect in made(films=films) if defect.id == "f2"} == {"number 2"}


def test_objects_without_an_id_are_not_the_same() -> None:
    films = [make_film("f1"), make_film(""), make_film("", title="Another")]

    kinds = {defect.kind for defect in made(films=films)}

    assert Kind.UNUSABLE in kinds
    assert Kind.DUPLICATE not in kinds


@pytest.mark.parametrize(
    ("url", "kind"),
    [(f"{SITE}/films/", Kind.BARE_LINK), (f"{SITE}/people/f1", Kind.NO_LINK), ("", Kind.SENTINEL)],
)
def test_a_url_that_is_nobodys(url: str, kind: Kind) -> None:
    [defect] = made(film={"url": url})

    assert (defect.kind, defect.field) == (kind, "url")


def test_every_kind_is_explained() -> None:
    assert list(MEANINGS) == list(Kind)


class TestTheRealData:
    def of(self, kind: Kind, field: str) -> list[Defect]:
        return [defect for defect in REAL if (defect.kind, defect.field) == (kind, field)]

    def test_17_films_have_the_bare_link_for_their_people(self) -> None:
        films = self.of(Kind.BARE_LINK, "people")

        assert len(films) == 17
        assert {film.detail for film in films} == {"https://ghibliapi.herokuapp.com/people/"}

    def test_8_films_list_fewer_people_than_say_to_be_in_them(self) -> None:
        lacking = {
            film.name: film.detail.partition(":")[0] for film in self.of(Kind.ONE_SIDED, "people")
        }

        assert lacking == {
            "Castle in the Sky": "7",
            "Porco Rosso": "1",
            "Whisper of the Heart": "2",
            "Spirited Away": "1",
            "The Cat Returns": "6",
            "Ponyo": "1",
            "Arrietty": "1",
            "Earwig and the Witch": "6",
        }

    def test_nobody_is_listed_who_does_not_say_so(self) -> None:
        assert self.of(Kind.ONE_SIDED, "films") == []

    def test_three_totoros_share_the_url_of_one(self) -> None:
        sharing = [person.name for person in self.of(Kind.SHARED_URL, "url")]
        foreign = [person.name for person in self.of(Kind.FOREIGN_URL, "url")]

        assert sharing == ["Totoro", "Chu Totoro", "Chibi Totoro"]
        assert foreign == ["Chu Totoro", "Chibi Totoro"]

    def test_24_values_stand_for_nothing(self) -> None:
        values = Counter(defect.detail for defect in REAL if defect.kind is Kind.SENTINEL)

        assert values == {"'NA'": 18, "''": 3, "'None'": 2, "'Unknown'": 1}

    def test_there_is_nothing_else(self) -> None:
        assert Counter(defect.kind for defect in REAL) == {
            Kind.BARE_LINK: 63,
            Kind.ONE_SIDED: 8,
            Kind.SHARED_URL: 3,
            Kind.FOREIGN_URL: 2,
            Kind.SENTINEL: 24,
        }

    def test_the_defects_come_by_kind(self) -> None:
        order = list(Kind)
        kinds = [order.index(defect.kind) for defect in REAL]

        assert kinds == sorted(kinds)

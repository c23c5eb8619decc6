"""Each kind of defect alone, then the defects of the real data."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from services.catalogue import bundled, entities
from services.catalogue.audit import SENTINELS, Defect, DefectKind, find_defects

SITE = "https://api.test"
FACTS = bundled.load()
REAL = find_defects(FACTS.films, FACTS.people)


def make_film(id: str = "f1", **values: object) -> dict[str, Any]:
    texts = dict.fromkeys(entities.FILM_FIELDS, "something")
    links = {"people": [], "species": [f"{SITE}/species/s1"], "locations": [], "vehicles": []}
    return {**texts, "id": id, "url": f"{SITE}/films/{id}", **links, **values}


def make_person(id: str = "p1", **values: object) -> dict[str, Any]:
    texts = dict.fromkeys(entities.PERSON_FIELDS, "something")
    links = {"films": [], "species": f"{SITE}/species/s1", "url": f"{SITE}/people/{id}"}
    return {**texts, "id": id, **links, **values}


def defects_of(
    *,
    films: list[dict[str, Any]] | None = None,
    film: Mapping[str, Any] | None = None,
    person: Mapping[str, Any] | None = None,
) -> list[Defect]:
    """The defects of a film and a person that are correct but for the given fields."""
    return find_defects(films or [make_film(**(film or {}))], [make_person(**(person or {}))])


def without(record: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != field}


def test_correct_data_has_no_defects() -> None:
    film = make_film(people=[f"{SITE}/people/p1"])
    person = make_person(films=[f"{SITE}/films/f1"])

    assert find_defects([film], [person]) == []


def test_hosts_slashes_and_upper_case_in_links_are_no_defects() -> None:
    film = make_film("AB", people=["http://elsewhere.test/api/people/P1/"])
    person = make_person(films=["https://mirror.test/films/ab"])

    assert find_defects([film], [person]) == []


@pytest.mark.parametrize("field", ["title", "people", "url"])
def test_finds_a_missing_field(field: str) -> None:
    found = find_defects([without(make_film(), field)], [make_person()])

    assert Defect(DefectKind.MISSING_FIELD, "films", "f1", found[-1].name, field, "") in found
    assert {defect.kind for defect in found} <= {DefectKind.MISSING_FIELD, DefectKind.UNUSABLE}


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
def test_finds_a_value_of_the_wrong_type(film: dict[str, object], field: str, detail: str) -> None:
    found = [defect for defect in defects_of(film=film) if defect.kind is not DefectKind.ONE_SIDED]

    assert found == [Defect(DefectKind.WRONG_TYPE, "films", "f1", "something", field, detail)]


def test_finds_a_list_where_a_single_link_should_be() -> None:
    [defect] = defects_of(person={"species": [f"{SITE}/species/s1"]})

    assert defect[:2] == (DefectKind.WRONG_TYPE, "people")
    assert defect.detail == "a list instead of text"


@pytest.mark.parametrize("value", [*sorted(SENTINELS), "NA", " Unknown ", "TODO", "N/A"])
def test_finds_a_placeholder(value: str) -> None:
    defect = Defect(DefectKind.SENTINEL, "people", "p1", "something", "age", repr(value))

    assert defects_of(person={"age": value}) == [defect]


@pytest.mark.parametrize("value", ["Nana", "0", "no one", "Nonetheless"])
def test_a_word_that_resembles_a_placeholder_is_no_defect(value: str) -> None:
    assert defects_of(person={"age": value}) == []


@pytest.mark.parametrize(
    ("link", "kind"),
    [
        (f"{SITE}/people/", DefectKind.BARE_LINK),
        (f"{SITE}/people", DefectKind.BARE_LINK),
        (f"{SITE}/people/p2", DefectKind.DANGLING_LINK),
        (f"{SITE}/films/p1", DefectKind.NO_LINK),
        ("htps://api.test/people/p2", DefectKind.NO_LINK),
        ("people/p2", DefectKind.NO_LINK),
        ("p2", DefectKind.NO_LINK),
        ("", DefectKind.SENTINEL),
        ("TODO", DefectKind.SENTINEL),
    ],
)
def test_finds_a_link_that_leads_to_no_object(link: str, kind: DefectKind) -> None:
    [defect] = defects_of(film={"people": [link]})

    assert (defect.kind, defect.field) == (kind, "people")
    assert link in defect.detail


def test_links_to_collections_that_are_not_fetched_are_not_checked() -> None:
    assert defects_of(film={"vehicles": [f"{SITE}/vehicles/unheard-of"]}) == []


def test_finds_a_duplicate_link() -> None:
    film = {"vehicles": [f"{SITE}/vehicles/v1"] * 2}

    [defect] = defects_of(film=film)

    assert (defect.kind, defect.field) == (DefectKind.DUPLICATE, "vehicles")
    assert defect.detail == f"2 times {SITE}/vehicles/v1"


def test_finds_a_duplicate_film() -> None:
    [defect] = defects_of(films=[make_film("f1"), make_film("f1")])

    assert (defect.kind, defect.field) == (DefectKind.DUPLICATE, "id")
    assert defect.detail.endswith("with the same content")


def test_two_different_films_with_one_id_are_unusable() -> None:
    films = [make_film("f1"), make_film("F1", title="Another", url=f"{SITE}/films/f1")]

    unusable, duplicate = defects_of(films=films)

    assert unusable.kind is DefectKind.UNUSABLE
    assert unusable.detail == "two different films share one id (schema)"
    assert (duplicate.kind, duplicate.name) == (DefectKind.DUPLICATE, "Another")
    assert duplicate.detail.endswith("with different content")


def test_finds_a_url_of_another_object() -> None:
    films = [make_film("f1", title="One"), make_film("f2", title="Two", url=f"{SITE}/films/f1")]

    assert defects_of(films=films) == [
        Defect(DefectKind.SHARED_URL, "films", "f1", "One", "url", "also the url of Two"),
        Defect(DefectKind.SHARED_URL, "films", "f2", "Two", "url", "also the url of One"),
        Defect(DefectKind.FOREIGN_URL, "films", "f2", "Two", "url", "it ends in f1"),
    ]


def test_finds_a_film_that_does_not_list_its_people() -> None:
    [defect] = defects_of(person={"films": [f"{SITE}/films/f1"], "name": "Haku"})

    assert defect == Defect(DefectKind.ONE_SIDED, "films", "f1", "something", "people", "1: Haku")


def test_finds_a_person_who_does_not_list_their_film() -> None:
    [defect] = defects_of(film={"people": [f"{SITE}/people/p1"], "title": "Ponyo"})

    assert defect == Defect(DefectKind.ONE_SIDED, "people", "p1", "something", "films", "1: Ponyo")


@pytest.mark.parametrize("films", [None, {}, [], "x", [1], [[]], [None]])
def test_anything_but_lists_of_objects_is_unusable(films: object) -> None:
    [defect] = find_defects(films, [make_person()])

    assert defect.kind is DefectKind.UNUSABLE


def test_an_object_without_a_name_is_named_by_its_position() -> None:
    films = [make_film("f1"), make_film("f2", title="")]

    assert {defect.name for defect in defects_of(films=films) if defect.id == "f2"} == {"number 2"}


def test_objects_without_an_id_are_no_duplicates() -> None:
    films = [make_film("f1"), make_film(""), make_film("", title="Another")]

    kinds = {defect.kind for defect in defects_of(films=films)}

    assert DefectKind.UNUSABLE in kinds
    assert DefectKind.DUPLICATE not in kinds


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (f"{SITE}/films/", DefectKind.BARE_LINK),
        (f"{SITE}/people/f1", DefectKind.NO_LINK),
        ("", DefectKind.SENTINEL),
    ],
)
def test_finds_a_url_that_leads_to_no_object(url: str, kind: DefectKind) -> None:
    [defect] = defects_of(film={"url": url})

    assert (defect.kind, defect.field) == (kind, "url")


def test_every_kind_has_a_meaning() -> None:
    assert all(kind.meaning for kind in DefectKind)


class TestRealData:
    def of(self, kind: DefectKind, field: str) -> list[Defect]:
        return [defect for defect in REAL if (defect.kind, defect.field) == (kind, field)]

    def test_17_films_have_a_bare_link_for_their_people(self) -> None:
        films = self.of(DefectKind.BARE_LINK, "people")

        assert len(films) == 17
        assert {film.detail for film in films} == {"https://ghibliapi.herokuapp.com/people/"}

    def test_8_films_do_not_list_all_of_their_people(self) -> None:
        missing = {
            film.name: film.detail.partition(":")[0]
            for film in self.of(DefectKind.ONE_SIDED, "people")
        }

        assert missing == {
            "Castle in the Sky": "7",
            "Porco Rosso": "1",
            "Whisper of the Heart": "2",
            "Spirited Away": "1",
            "The Cat Returns": "6",
            "Ponyo": "1",
            "Arrietty": "1",
            "Earwig and the Witch": "6",
        }

    def test_every_listed_person_lists_the_film(self) -> None:
        assert self.of(DefectKind.ONE_SIDED, "films") == []

    def test_three_totoros_share_the_url_of_one(self) -> None:
        sharing = [person.name for person in self.of(DefectKind.SHARED_URL, "url")]
        foreign = [person.name for person in self.of(DefectKind.FOREIGN_URL, "url")]

        assert sharing == ["Totoro", "Chu Totoro", "Chibi Totoro"]
        assert foreign == ["Chu Totoro", "Chibi Totoro"]

    def test_24_values_are_placeholders(self) -> None:
        values = Counter(defect.detail for defect in REAL if defect.kind is DefectKind.SENTINEL)

        assert values == {"'NA'": 18, "''": 3, "'None'": 2, "'Unknown'": 1}

    def test_there_are_no_other_defects(self) -> None:
        assert Counter(defect.kind for defect in REAL) == {
            DefectKind.BARE_LINK: 63,
            DefectKind.ONE_SIDED: 8,
            DefectKind.SHARED_URL: 3,
            DefectKind.FOREIGN_URL: 2,
            DefectKind.SENTINEL: 24,
        }

    def test_defects_are_sorted_by_kind(self) -> None:
        order = list(DefectKind)
        kinds = [order.index(defect.kind) for defect in REAL]

        assert kinds == sorted(kinds)

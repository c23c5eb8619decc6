"""Audit the Ghibli API's lists of films and people for defects. Pure.

Totoro repairs or tolerates all of them but UNUSABLE. The audit is for the maintainers of that API.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

from services.catalogue import merge
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS
from services.catalogue.merge import linked_id
from services.exceptions import UpstreamError


class DefectKind(StrEnum):
    """Each kind with its meaning, the most serious first."""

    meaning: str

    UNUSABLE = "unusable", "Totoro refuses the data and serves older data"
    DUPLICATE = "duplicate", "the same id, or the same link, more than once"
    MISSING_FIELD = "missing_field", "a field is missing"
    WRONG_TYPE = "wrong_type", "not the text, or the list of links, that the field should hold"
    NO_LINK = "no_link", "not a link to an object of the collection"
    DANGLING_LINK = "dangling_link", "a link to an object that does not exist"
    BARE_LINK = "bare_link", "a link to a whole collection instead of an object"
    ONE_SIDED = "one_sided", "not listed, although the other side links person and film"
    SHARED_URL = "shared_url", "several objects have the same url"
    FOREIGN_URL = "foreign_url", "the url is another object's"
    SENTINEL = "sentinel", "a placeholder instead of a value"

    def __new__(cls, value: str, meaning: str) -> Self:
        kind = str.__new__(cls, value)
        kind._value_, kind.meaning = value, meaning
        return kind


class Defect(NamedTuple):
    """`name` is a film's title, a person's name, or the position in the list."""

    kind: DefectKind
    collection: str
    id: str
    name: str
    field: str
    detail: str


# A film's fields with links. Totoro does not request them for its own responses.
FILM_LINKS = ("people", "species", "locations", "vehicles")
FIELDS = {"films": (*FILM_FIELDS, *FILM_LINKS), "people": PERSON_FIELDS}
# Fields with a list of links, and fields with one link; they link to the collection of their name.
LINK_LISTS = {"films": FILM_LINKS, "people": ("films",)}
SINGLE_LINKS = {"films": ("url",), "people": ("species", "url")}
NAME_FIELDS = {"films": "title", "people": "name"}

SENTINELS = {"", "-", "--", "?", "n/a", "na", "nan", "nil", "none", "null"}
SENTINELS |= {"tba", "tbd", "todo", "undefined", "unknown", "unspecified"}

WEB_ADDRESS = re.compile(r"https?://[^/\s]+/\S+", re.IGNORECASE)

TYPE_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class Record(NamedTuple):
    """An object of one of the lists."""

    collection: str
    fields: Mapping[str, Any]
    id: str
    name: str

    def defect(self, kind: DefectKind, field: str, detail: str = "") -> Defect:
        return Defect(kind, self.collection, self.id, self.name, field, detail)

    def links(self, field: str) -> list[str]:
        value = self.fields.get(field)
        links = value if isinstance(value, list) else [value]
        return [link for link in links if isinstance(link, str)]

    def linked_ids(self, field: str) -> set[str | None]:
        return {linked_id(link, field) for link in self.links(field)}


Collections = Mapping[str, list[Record]]


def find_defects(films: object, people: object) -> list[Defect]:
    """Return all defects, sorted by kind; every object should have all of FIELDS."""
    collections = {"films": _records(films, "films"), "people": _records(people, "people")}
    defects = [*_unusable(films, people)]
    for collection, records in collections.items():
        defects += [*_duplicate_ids(records), *_urls(records)]
        for record in records:
            for field in FIELDS[collection]:
                defects += _field(record, field, collections)
    defects += _one_sided(collections, "films", "people")
    defects += _one_sided(collections, "people", "films")
    kinds = list(DefectKind)
    return sorted(defects, key=lambda defect: kinds.index(defect.kind))


def _records(payload: object, collection: str) -> list[Record]:
    records = []
    for number, fields in enumerate(payload if isinstance(payload, list) else (), 1):
        if isinstance(fields, dict):
            name = fields.get(NAME_FIELDS[collection]) or f"number {number}"
            records.append(Record(collection, fields, str(fields.get("id", "")), str(name)))
    return records


def _unusable(films: object, people: object) -> Iterator[Defect]:
    try:
        merge.build(films, people)
    except UpstreamError as error:
        yield Defect(DefectKind.UNUSABLE, "", "", "", "", f"{error} ({error.reason})")


def _duplicate_ids(records: list[Record]) -> Iterator[Defect]:
    first: dict[str, Record] = {}
    for record in records:
        other = first.setdefault(record.id.lower(), record)
        if record.id and other is not record:
            content = "the same" if other.fields == record.fields else "different"
            detail = f"also the id of {other.name}, with {content} content"
            yield record.defect(DefectKind.DUPLICATE, "id", detail)


def _urls(records: list[Record]) -> Iterator[Defect]:
    distinct = {record.id.lower(): record for record in records}.values()
    for record in distinct:
        for url in filter(None, record.links("url")):
            others = [o.name for o in distinct if o is not record and url in o.links("url")]
            if others:
                detail = f"also the url of {', '.join(others)}"
                yield record.defect(DefectKind.SHARED_URL, "url", detail)
            id = linked_id(url, record.collection)
            if id and id != record.id.lower():
                yield record.defect(DefectKind.FOREIGN_URL, "url", f"it ends in {id}")


def _field(record: Record, field: str, collections: Collections) -> Iterator[Defect]:
    if field not in record.fields:
        yield record.defect(DefectKind.MISSING_FIELD, field)
        return
    value = record.fields[field]
    is_list = field in LINK_LISTS[record.collection]
    actual, expected = TYPE_NAMES[type(value)], TYPE_NAMES[list if is_list else str]
    if actual != expected:
        yield record.defect(DefectKind.WRONG_TYPE, field, f"{actual} instead of {expected}")
    elif is_list or field in SINGLE_LINKS[record.collection]:
        yield from _links(record, field, collections)
    elif is_sentinel(value):
        yield record.defect(DefectKind.SENTINEL, field, repr(value))


def _links(record: Record, field: str, collections: Collections) -> Iterator[Defect]:
    value = record.fields[field]
    for element in value if isinstance(value, list) else ():
        if not isinstance(element, str):
            detail = f"{TYPE_NAMES[type(element)]} among the links"
            yield record.defect(DefectKind.WRONG_TYPE, field, detail)
    collection = record.collection if field == "url" else field
    for link, times in Counter(record.links(field)).items():
        if times > 1:
            yield record.defect(DefectKind.DUPLICATE, field, f"{times} times {link}")
        if kind := _link_defect(link, collection, collections):
            detail = repr(link) if kind is DefectKind.SENTINEL else link
            yield record.defect(kind, field, detail)


def _link_defect(link: str, collection: str, collections: Collections) -> DefectKind | None:
    id = linked_id(link, collection)
    if is_sentinel(link):
        return DefectKind.SENTINEL
    if id is None or not WEB_ADDRESS.fullmatch(link):
        return DefectKind.NO_LINK
    if not id:
        return DefectKind.BARE_LINK
    # The objects of other collections are not fetched.
    if collection in collections and all(r.id.lower() != id for r in collections[collection]):
        return DefectKind.DANGLING_LINK
    return None


def is_sentinel(text: str) -> bool:
    return text.strip().lower() in SENTINELS


def _one_sided(collections: Collections, collection: str, other: str) -> Iterator[Defect]:
    """Yield each record that lacks links to records of the other collection which link to it."""
    links = [(record, record.linked_ids(collection)) for record in collections[other]]
    for record in collections[collection]:
        listed = record.linked_ids(other)
        missing = [
            source.name
            for source, targets in links
            if record.id.lower() in targets and source.id.lower() not in listed
        ]
        if missing:
            detail = f"{len(missing)}: {', '.join(missing)}"
            yield record.defect(DefectKind.ONE_SIDED, other, detail)

"""What is wrong with the Ghibli API's data, from its lists of films and people. Pure.

Totoro mends or bears all of it but what is UNUSABLE; this is for whoever can mend it at the source.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from services.catalogue import merge
from services.catalogue.entities import FILM_FIELDS, PERSON_FIELDS
from services.exceptions import UpstreamError


class Kind(StrEnum):
    """In the order of how much they matter."""

    UNUSABLE = "unusable"
    DUPLICATE = "duplicate"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NO_LINK = "no_link"
    DANGLING_LINK = "dangling_link"
    BARE_LINK = "bare_link"
    ONE_SIDED = "one_sided"
    SHARED_URL = "shared_url"
    FOREIGN_URL = "foreign_url"
    SENTINEL = "sentinel"


MEANINGS = {
    Kind.UNUSABLE: "Totoro refuses the data and goes on with older",
    Kind.DUPLICATE: "the same id, or the same link, more than once",
    Kind.MISSING_FIELD: "a field is not there",
    Kind.WRONG_TYPE: "not the text, or the list of texts, that the field holds elsewhere",
    Kind.NO_LINK: "no link to an object of the collection",
    Kind.DANGLING_LINK: "a link to an object that is not there",
    Kind.BARE_LINK: "a link to a whole collection instead of an object",
    Kind.ONE_SIDED: "not listed, though the other side says that this person is in this film",
    Kind.SHARED_URL: "several objects have the same url",
    Kind.FOREIGN_URL: "the url is that of another object",
    Kind.SENTINEL: "a word that stands for nothing",
}


class Defect(NamedTuple):
    """`name`: the title of a film, the name of a person, or its place in the list."""

    kind: Kind
    collection: str
    id: str
    name: str
    field: str
    detail: str


# The films' fields that hold links. Totoro's own requests do without them.
FILM_LINKS = ("people", "species", "locations", "vehicles")
FIELDS = {"films": (*FILM_FIELDS, *FILM_LINKS), "people": PERSON_FIELDS}
# Those that hold a list of links, and those that hold one: each to the collection of its name, and
# the url to the object itself.
LISTS = {"films": FILM_LINKS, "people": ("films",)}
SINGLE = {"films": ("url",), "people": ("species", "url")}
NAMES = {"films": "title", "people": "name"}

SENTINELS = {"", "-", "--", "?", "n/a", "na", "nan", "nil", "none", "null"}
SENTINELS |= {"tba", "tbd", "todo", "undefined", "unknown", "unspecified"}

WEB_ADDRESS = re.compile(r"https?://[^/\s]+/\S+", re.IGNORECASE)

TYPES: dict[type, str] = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
}


class Item(NamedTuple):
    """An object of one of the lists."""

    collection: str
    values: Mapping[str, Any]
    id: str
    name: str

    def defect(self, kind: Kind, field: str, detail: str = "") -> Defect:
        return Defect(kind, self.collection, self.id, self.name, field, detail)

    def links(self, field: str) -> list[str]:
        value = self.values.get(field)
        links = value if isinstance(value, list) else [value]
        return [link for link in links if isinstance(link, str)]

    def linked(self, field: str) -> set[str | None]:
        """The ids that its links name."""
        return {link_id(link, field) for link in self.links(field)}


def find(films: object, people: object) -> list[Defect]:
    """Every defect of the two lists, whose objects are to have all of FIELDS."""
    lists = {"films": _items(films, "films"), "people": _items(people, "people")}
    found = [*_unusable(films, people)]
    for collection, items in lists.items():
        found += [*_repeated(items), *_urls(items)]
        for item in items:
            for field in FIELDS[collection]:
                found += _field(item, field, lists)
    found += _one_sided(lists, "films", "people")
    found += _one_sided(lists, "people", "films")
    # The sort keeps the data's order within a kind.
    return sorted(found, key=lambda defect: list(Kind).index(defect.kind))


def link_id(link: str, collection: str) -> str | None:
    """The id (lower case) in `…/<collection>/<id>`, whatever stands before; "" for a bare
    `…/<collection>/`, None for anything else."""
    parts = re.split(r"[?#]", link.lower())[0].rstrip("/").split("/")
    if parts[-1] == collection:
        return ""
    return parts[-1] if parts[-2:-1] == [collection] else None


def is_sentinel(text: str) -> bool:
    return text.strip().lower() in SENTINELS


def _items(payload: object, collection: str) -> list[Item]:
    items = []
    for number, values in enumerate(payload if isinstance(payload, list) else (), 1):
        if isinstance(values, dict):
            name = values.get(NAMES[collection]) or f"number {number}"
            items.append(Item(collection, values, str(values.get("id", "")), str(name)))
    return items


def _unusable(films: object, people: object) -> Iterator[Defect]:
    try:
        merge.build(films, people)
    except UpstreamError as error:
        yield Defect(Kind.UNUSABLE, "", "", "", "", f"{error} ({error.reason})")


def _repeated(items: list[Item]) -> Iterator[Defect]:
    first: dict[str, Item] = {}
    for item in items:
        known = first.setdefault(item.id.lower(), item)
        if item.id and known is not item:
            how = "alike" if known.values == item.values else "in conflict"
            yield item.defect(Kind.DUPLICATE, "id", f"also that of {known.name}, {how}")


def _urls(items: list[Item]) -> Iterator[Defect]:
    """Those that the items share, and those of others."""
    distinct = {item.id.lower(): item for item in items}.values()
    for item in distinct:
        for url in item.links("url"):
            id = link_id(url, item.collection)
            sharing = [o.name for o in distinct if o is not item and url and url in o.links("url")]
            if sharing:
                yield item.defect(Kind.SHARED_URL, "url", f"also that of {', '.join(sharing)}")
            if id and id != item.id.lower():
                yield item.defect(Kind.FOREIGN_URL, "url", f"it ends in {id}")


def _field(item: Item, field: str, lists: Mapping[str, list[Item]]) -> Iterator[Defect]:
    value: Any = item.values.get(field)
    is_list = field in LISTS[item.collection]
    if field not in item.values:
        yield item.defect(Kind.MISSING_FIELD, field)
    elif mistake := _mistaken(value, list if is_list else str):
        yield item.defect(Kind.WRONG_TYPE, field, mistake)
    elif is_list or field in SINGLE[item.collection]:
        yield from _links(item, field, lists)
    elif is_sentinel(value):
        yield item.defect(Kind.SENTINEL, field, repr(value))


def _mistaken(value: object, wanted: type) -> str | None:
    return None if type(value) is wanted else f"{TYPES[type(value)]} instead of {TYPES[wanted]}"


def _links(item: Item, field: str, lists: Mapping[str, list[Item]]) -> Iterator[Defect]:
    value, links = item.values[field], item.links(field)
    for other in value if isinstance(value, list) else ():
        if not isinstance(other, str):
            yield item.defect(Kind.WRONG_TYPE, field, f"{TYPES[type(other)]} among the links")
    for link, times in Counter(links).items():
        if times > 1:
            yield item.defect(Kind.DUPLICATE, field, f"{times} times {link}")
        if kind := _wrong(link, item.collection if field == "url" else field, lists):
            yield item.defect(kind, field, repr(link) if kind is Kind.SENTINEL else link)


def _wrong(link: str, collection: str, lists: Mapping[str, list[Item]]) -> Kind | None:
    """What is wrong with a link to an object of a collection."""
    id = link_id(link, collection)
    if is_sentinel(link):
        return Kind.SENTINEL
    if id is None or not WEB_ADDRESS.fullmatch(link):
        return Kind.NO_LINK
    if not id:
        return Kind.BARE_LINK
    # Of the other collections nobody knows the objects.
    if collection in lists and all(item.id.lower() != id for item in lists[collection]):
        return Kind.DANGLING_LINK
    return None


def _one_sided(lists: Mapping[str, list[Item]], here: str, there: str) -> Iterator[Defect]:
    """Whom the items here do not list, though they are listed by them."""
    others = [(other, other.linked(here)) for other in lists[there]]
    for item in lists[here]:
        listed = item.linked(there)
        lacking = [
            other.name
            for other, names in others
            if item.id.lower() in names and other.id.lower() not in listed
        ]
        if lacking:
            yield item.defect(Kind.ONE_SIDED, there, f"{len(lacking)}: {', '.join(lacking)}")

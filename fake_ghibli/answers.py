"""What the Ghibli API answers: pure functions of its data and a request."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from fake_ghibli.express import Answer, Request, etag, failure, html, json_answer, packed

Item = dict[str, Any]
Collections = Mapping[str, list[Item]]
Query = dict[str, list[str]]

MAX_LIMIT = 250
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

HOME = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Studio Ghibli API</title></head>
<body><h1>Studio Ghibli API</h1><a href="/films">Films</a></body>
</html>
"""


class Refusal(Exception):
    """The real program fell over this request and shows why as HTML."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def answer(collections: Collections, request: Request) -> Answer:
    try:
        made = _answer(collections, request)
    except Refusal as refusal:
        made = failure(refusal.status, refusal.reason)
    return packed(made, request)


def path_segments(path: str) -> list[str]:
    """Of `/films/ID?limit=1`: films, ID. One slash at the end makes no difference."""
    return path.partition("?")[0].removeprefix("/").removesuffix("/").split("/")


def _answer(collections: Collections, request: Request) -> Answer:
    if request.method == "OPTIONS":
        return _preflight(request)
    if path_segments(request.path) == [""] and request.method in ("GET", "HEAD"):
        return _home()
    query = parse_qs(request.path.partition("?")[2], keep_blank_values=True)
    found, status = _found(collections, request, query)
    return json_answer(status, _limited(_only_fields(found, query), query))


def _preflight(request: Request) -> Answer:
    headers = {
        "Vary": "Origin, Access-Control-Request-Headers",
        "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE",
        "Content-Length": "0",
    }
    if asked := request.header("access-control-request-headers"):
        headers["Access-Control-Allow-Headers"] = asked
    return Answer(204, headers)


def _home() -> Answer:
    home = html(200, HOME)
    home.headers |= {"Cache-Control": "public, max-age=0", "ETag": etag(home.body)}
    return home


def _found(
    collections: Collections, request: Request, query: Query
) -> tuple[list[Item] | Item, int]:
    """The data that a path and a method lead to, and the status to give it with."""
    by_name = {name.lower(): items for name, items in collections.items()}
    name, *rest = path_segments(request.path)
    items = by_name.get(name.lower())
    match request.method, [_decoded(segment) for segment in rest]:
        case _ if items is None:
            return {}, 404
        case "GET" | "HEAD", []:
            return _matching(items, query), 200
        case "GET" | "HEAD", [_, nested] if nested.lower() in by_name:
            # The filter of a nested route has no effect in the real program.
            return by_name[nested.lower()], 200
        case "POST", []:
            return _sent(request), 201
        case "GET" | "HEAD" | "PUT" | "PATCH" | "DELETE", [id]:
            for item in items:
                if str(item.get("id")) == id:
                    return _changed(item, request), 200
    return {}, 404


def _decoded(segment: str) -> str:
    try:
        if not BAD_ESCAPE.search(segment):
            return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        pass
    raise Refusal(500, f"URIError: cannot decode {segment!r}")


def _matching(items: list[Item], query: Query) -> list[Item]:
    """Those with exactly the values asked for; a key that no item has is no filter."""
    for key in query.keys() & {key for item in items for key in item}:
        items = [item for item in items if str(item.get(key)) in query[key]]
    word = query.get("q", [""])[0].lower()
    return [item for item in items if not word or _mentions(item, word)]


def _mentions(item: Item, word: str) -> bool:
    return any(word in str(value).lower() for value in item.values())


def _changed(item: Item, request: Request) -> Item:
    """What a write would make of the item. Nothing is ever kept, as in the real program."""
    match request.method:
        case "DELETE":
            return {}
        case "PUT":
            return _sent(request) | {"id": item["id"]}
        case "PATCH":
            return item | _sent(request) | {"id": item["id"]}
    return item


def _sent(request: Request) -> Item:
    if not request.header("content-type").startswith("application/json"):
        return {}
    try:
        sent = json.loads(request.body or b"{}")
    except ValueError as error:
        raise Refusal(400, "SyntaxError: the body is not JSON") from error
    if not isinstance(sent, dict):
        raise Refusal(400, "SyntaxError: the body is no JSON object")
    return sent


def _only_fields(found: list[Item] | Item, query: Query) -> list[Item] | Item:
    match query.get("fields", [""]):
        case [""]:
            return found
        case [fields]:
            wanted = fields.split(",")
        case _:
            raise Refusal(500, "TypeError: query.fields.split is not a function")
    if isinstance(found, dict):
        return {key: value for key, value in found.items() if key in wanted}
    return [{key: item[key] for key in item if key in wanted} for item in found]


def _limited(found: list[Item] | Item, query: Query) -> list[Item] | Item:
    limit = ",".join(query.get("limit", []))
    if isinstance(found, dict) or not limit:
        return found
    try:
        length = min(float(limit), len(found), MAX_LIMIT)
    except ValueError:
        length = -1
    # The limit becomes the length of a JavaScript array: too large is fine, 1.5 is not.
    if not length >= 0 or length % 1:
        raise Refusal(500, "RangeError: Invalid array length")
    return found[: int(length)]

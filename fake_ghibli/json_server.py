"""The routes, filters and errors of json-server, as pure functions of the data and a request."""

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

from fake_ghibli.express import (
    Request,
    Response,
    error_response,
    etag,
    finalize,
    html_response,
    json_response,
)

Record = dict[str, Any]
Collections = Mapping[str, list[Record]]
Query = dict[str, list[str]]

MAX_LIMIT = 250
INVALID_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

HOME = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Studio Ghibli API</title></head>
<body><h1>Studio Ghibli API</h1><a href="/films">Films</a></body>
</html>
"""


class JavaScriptError(Exception):
    """The real server raises an error for this request, and shows it as HTML."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def respond(collections: Collections, request: Request) -> Response:
    try:
        response = _respond(collections, request)
    except JavaScriptError as error:
        response = error_response(error.status, str(error))
    return finalize(response, request)


def path_segments(path: str) -> list[str]:
    """Split `/films/ID?limit=1` into films and ID. One slash at the end makes no difference."""
    return path.partition("?")[0].removeprefix("/").removesuffix("/").split("/")


def _respond(collections: Collections, request: Request) -> Response:
    if request.method == "OPTIONS":
        return _preflight(request)
    if path_segments(request.path) == [""] and request.method in ("GET", "HEAD"):
        return _home()
    query = parse_qs(request.path.partition("?")[2], keep_blank_values=True)
    content, status = _route(collections, request, query)
    return json_response(status, _limit(_select_fields(content, query), query))


def _preflight(request: Request) -> Response:
    headers = {
        "Vary": "Origin, Access-Control-Request-Headers",
        "Access-Control-Allow-Methods": "GET,HEAD,PUT,PATCH,POST,DELETE",
        "Content-Length": "0",
    }
    if requested := request.header("access-control-request-headers"):
        headers["Access-Control-Allow-Headers"] = requested
    return Response(204, headers)


def _home() -> Response:
    home = html_response(200, HOME)
    home.headers |= {"Cache-Control": "public, max-age=0", "ETag": etag(home.body)}
    return home


def _route(
    collections: Collections, request: Request, query: Query
) -> tuple[list[Record] | Record, int]:
    """Return the content and the status for a path and a method."""
    by_name = {name.lower(): records for name, records in collections.items()}
    name, *rest = path_segments(request.path)
    records = by_name.get(name.lower())
    match request.method, [_decode(segment) for segment in rest]:
        case _ if records is None:
            return {}, 404
        case "GET" | "HEAD", []:
            return _filter(records, query), 200
        case "GET" | "HEAD", [_, nested] if nested.lower() in by_name:
            # The filter of a nested route has no effect in the real server.
            return by_name[nested.lower()], 200
        case "POST", []:
            return _json_body(request), 201
        case "GET" | "HEAD" | "PUT" | "PATCH" | "DELETE", [id]:
            for record in records:
                if str(record.get("id")) == id:
                    return _written(record, request), 200
    return {}, 404


def _decode(segment: str) -> str:
    try:
        if not INVALID_ESCAPE.search(segment):
            return unquote(segment, errors="strict")
    except UnicodeDecodeError:
        pass
    raise JavaScriptError(500, f"URIError: cannot decode {segment!r}")


def _filter(records: list[Record], query: Query) -> list[Record]:
    """Return the records with exactly the queried values; keys that no record has are ignored."""
    for key in query.keys() & {key for record in records for key in record}:
        records = [record for record in records if str(record.get(key)) in query[key]]
    word = query.get("q", [""])[0].lower()
    return [record for record in records if not word or _contains(record, word)]


def _contains(record: Record, word: str) -> bool:
    return any(word in str(value).lower() for value in record.values())


def _written(record: Record, request: Request) -> Record:
    """Return the record as a write would change it. Like the real server, store nothing."""
    match request.method:
        case "DELETE":
            return {}
        case "PUT":
            return _json_body(request) | {"id": record["id"]}
        case "PATCH":
            return record | _json_body(request) | {"id": record["id"]}
    return record


def _json_body(request: Request) -> Record:
    if not request.header("content-type").startswith("application/json"):
        return {}
    try:
        body = json.loads(request.body or b"{}")
    except ValueError as error:
        raise JavaScriptError(400, "SyntaxError: the body is not JSON") from error
    if not isinstance(body, dict):
        raise JavaScriptError(400, "SyntaxError: the body is not a JSON object")
    return body


def _select_fields(content: list[Record] | Record, query: Query) -> list[Record] | Record:
    match query.get("fields", [""]):
        case [""]:
            return content
        case [fields]:
            selected = fields.split(",")
        case _:
            raise JavaScriptError(500, "TypeError: query.fields.split is not a function")
    if isinstance(content, dict):
        return {key: value for key, value in content.items() if key in selected}
    return [{key: record[key] for key in record if key in selected} for record in content]


def _limit(content: list[Record] | Record, query: Query) -> list[Record] | Record:
    limit = ",".join(query.get("limit", []))
    if isinstance(content, dict) or not limit:
        return content
    try:
        length = min(float(limit), len(content), MAX_LIMIT)
    except ValueError:
        length = -1
    # The limit becomes the length of a JavaScript array, which must be a whole number.
    if not length >= 0 or length % 1:
        raise JavaScriptError(500, "RangeError: Invalid array length")
    return content[: int(length)]

"""What the tests of the Ghibli API client share: parts of responses, and how a fetch fails."""

import json
import threading
from typing import Any

import pytest

from services.exceptions import UpstreamError
from services.ghibli.client import GhibliClient
from tests.support.scripted_upstream import CATALOGUE, http_response
from tests.support.servers import wait_until

MIB = 1024 * 1024
FILMS_BODY = json.dumps(CATALOGUE.films).encode()
HEAD = http_response(Content_Length=None)
CHUNKED_HEAD = http_response(Content_Length=None, Transfer_Encoding="chunked")
HALF = http_response(FILMS_BODY)[:9000]
UNAVAILABLE = http_response(b"{}", "503 Service Unavailable")


def failure(url: str, **options: Any) -> UpstreamError:
    """Return the error of a fetch from this URL, after all of its threads have ended."""
    client = GhibliClient(url, **options)
    with pytest.raises(UpstreamError) as caught:
        client.fetch()
    wait_until(lambda: not fetch_threads(), what="all threads end")
    return caught.value


def fetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ghibli"]

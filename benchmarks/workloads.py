"""The requests that are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MY_NEIGHBOR_TOTORO = "58611129-2dbc-4a81-a72f-77ddfc1b1b49"


@dataclass(frozen=True)
class Workload:
    """One request, sent again and again by a script of wrk. A 304 needs the ETag of the response."""

    name: str
    path: str = "/movies/"
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200
    script: str = "wrk.lua"


LIST = Workload("list")
DETAIL = Workload("detail", f"/movies/{MY_NEIGHBOR_TOTORO}/")
PAGE = Workload("page", "/movies/?limit=5")
FILTER = Workload("filter", "/movies/?director=miyazaki")
NOT_MODIFIED = Workload("304", status=304)
GZIP = Workload("gzip", headers={"Accept-Encoding": "gzip"})

WORKLOADS = {each.name: each for each in (LIST, DETAIL, PAGE, FILTER, NOT_MODIFIED, GZIP)}
# Names of their own, so that their samples are not added to those of LIST.
BESIDE_WAITING = Workload("list, while requests wait")
MANY_CLIENTS = Workload("list, from 64 clients", script="many_clients.lua")

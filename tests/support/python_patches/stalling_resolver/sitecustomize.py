"""A resolver that stalls for one name. For servers under test, through PYTHONPATH.

libpq resolves names itself, so psycopg.connect() stalls instead.
"""

import socket
import time
from typing import Any

import psycopg

NAME = "stalls.test"
SECONDS = 15

getaddrinfo, connect = socket.getaddrinfo, psycopg.connect


def stalling_getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
    if host == NAME:
        time.sleep(SECONDS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return getaddrinfo(host, *arguments, **options)


def stalling_connect(*arguments: Any, **options: Any) -> Any:
    if options.get("host") == NAME:
        time.sleep(SECONDS)
        raise psycopg.OperationalError("could not translate host name")
    return connect(*arguments, **options)


socket.getaddrinfo = stalling_getaddrinfo
psycopg.connect = stalling_connect

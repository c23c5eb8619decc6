"""gzip for responses: who gets it, and the same bytes from every worker."""

import gzip

from movies.http.negotiation import parse_qualities

# Below this size (bytes) gzip saves too little.
MIN_SIZE_FOR_GZIP = 1024


def should_gzip(body: bytes, accept_encoding: str) -> bool:
    return len(body) >= MIN_SIZE_FOR_GZIP and prefers_gzip(accept_encoding)


def compress(body: bytes) -> bytes:
    # Without the current time, which would make the bytes of each worker differ. Level 9 takes twice
    # the time for one hundredth less.
    return gzip.compress(body, compresslevel=6, mtime=0)


def prefers_gzip(accept_encoding: str) -> bool:
    qualities = parse_qualities(accept_encoding)
    gzip = qualities.get("gzip", qualities.get("x-gzip", qualities.get("*", 0.0)))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)

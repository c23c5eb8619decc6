"""FastAPI, with rendered responses in the memory of the process."""

import os
import time

from fastapi import FastAPI, HTTPException, Response
from fastapi.middleware.gzip import GZipMiddleware
from ghibli import TTL_SECONDS
from upstream import fetch_bodies

app = FastAPI()
# It costs a fifth, also of responses that it does not compress, so a server of its own has it.
if "GZIP" in os.environ:
    app.add_middleware(GZipMiddleware)


class Cache:
    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.expires_at = 0.0

    async def body(self, name: str) -> bytes | None:
        if time.monotonic() >= self.expires_at:
            self.bodies = await fetch_bodies()
            self.expires_at = time.monotonic() + TTL_SECONDS
        return self.bodies.get(name)


cache = Cache()


async def response(name: str) -> Response:
    body = await cache.body(name)
    if body is None:
        raise HTTPException(404)
    return Response(body, media_type="application/json")


@app.get("/movies/")
async def movies() -> Response:
    return await response("list")


@app.get("/movies/{movie_id}/")
async def movie(movie_id: str) -> Response:
    return await response(movie_id)

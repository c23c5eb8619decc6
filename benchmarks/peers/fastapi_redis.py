"""FastAPI, with rendered responses in Redis."""

import os

from fastapi import FastAPI, HTTPException, Response
from fastapi.middleware.gzip import GZipMiddleware
from redis_cache import cached_body

app = FastAPI()
# It costs a fifth, also of responses that it does not compress, so a server of its own has it.
if "GZIP" in os.environ:
    app.add_middleware(GZipMiddleware)


async def response(name: str) -> Response:
    body = await cached_body(name)
    if body is None:
        raise HTTPException(404)
    return Response(body, media_type="application/json")


@app.get("/movies/")
async def movies() -> Response:
    return await response("list")


@app.get("/movies/{movie_id}/")
async def movie(movie_id: str) -> Response:
    return await response(movie_id)

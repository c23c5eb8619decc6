"""BlackSheep, with rendered responses in Redis."""

from blacksheep import Application, Content, Response, get
from redis_cache import cached_body

app = Application()


async def response(name: str) -> Response:
    body = await cached_body(name)
    if body is None:
        return Response(404)
    return Response(200, content=Content(b"application/json", body))


@get("/movies/")
async def movies() -> Response:
    return await response("list")


@get("/movies/{movie_id}/")
async def movie(movie_id: str) -> Response:
    return await response(movie_id)

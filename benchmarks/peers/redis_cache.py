"""Rendered responses in Redis, cached for a minute (cache-aside), for the asynchronous peers."""

import os

from ghibli import TTL_SECONDS
from redis.asyncio import Redis
from upstream import fetch_bodies

redis = Redis.from_url(os.environ["REDIS_URL"])


async def cached_body(name: str) -> bytes | None:
    """Return a rendered response; None if there is no such movie."""
    if body := await redis.get(name):
        return bytes(body)
    bodies = await fetch_bodies()
    async with redis.pipeline() as pipeline:
        for key, body in bodies.items():
            pipeline.set(key, body, ex=TTL_SECONDS)
        await pipeline.execute()
    return bodies.get(name)

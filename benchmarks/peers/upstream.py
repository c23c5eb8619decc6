"""The Ghibli API, fetched with httpx, for the asynchronous peers."""

import asyncio

import httpx
from ghibli import URLS, bodies, now


async def fetch_bodies() -> dict[str, bytes]:
    """Return the JSON of every movie by its id, and that of the list as `list`."""
    timestamp = now()
    async with httpx.AsyncClient() as client:
        films, people = await asyncio.gather(*map(client.get, URLS))
    return bodies(films.json(), people.json(), timestamp)

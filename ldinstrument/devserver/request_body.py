"""The body of a request that is no event: read up to a bound, so that nobody fills the memory."""

from __future__ import annotations

from starlette.requests import Request

from .responses import too_large

MOST_BYTES = 10 * 1024 * 1024


async def read_body(request: Request, limit: int = MOST_BYTES) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedRequest: 413, it has more than *limit* bytes.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large()
        chunks.append(chunk)
    return b"".join(chunks)

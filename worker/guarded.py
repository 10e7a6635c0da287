"""One request to a URL that a stranger named: the way out of the worker, but for bare_post.py.

The host is resolved once, every address it resolves to must be allowed (addresses.py), and the connection
goes to those addresses and not to the name. Redirects are not followed, no proxy of the environment is used,
no connection is kept: two names may share an address, and a name must be checked each time. Bounds on time
and on what is read are the caller's.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from worker.addresses import resolve

CONNECT_TIMEOUT_S = 5.0  # per address, within the whole


class BadUrlError(Exception):
    """This can never be sent to; the text says why."""


class GuardedClient:
    """Use as an async context manager."""

    def __init__(self, *, user_agent: str, tls: ssl.SSLContext | None = None) -> None:
        """`tls` replaces the system's trust store (tests, private authorities)."""
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                verify=True if tls is None else tls,
                trust_env=False,
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
            ),
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": user_agent, "accept-encoding": "identity"},
        )

    async def __aenter__(self) -> GuardedClient:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._client.__aexit__(*exc)

    @asynccontextmanager
    async def post(
        self, target: str, *, content: bytes, headers: Mapping[str, str], allow_private: bool
    ) -> AsyncIterator[httpx2.Response]:
        """The answer, its body not yet read. BadUrlError, AddressRefusedError, httpx2.HTTPError."""
        async with self.request(
            "POST", target, content=content, headers=headers, allow_private=allow_private
        ) as response:
            yield response

    @asynccontextmanager
    async def request(
        self, method: str, target: str, *, content: bytes, headers: Mapping[str, str], allow_private: bool
    ) -> AsyncIterator[httpx2.Response]:
        """As `post`, by another method."""
        response = await self._send(method, checked_url(target), content, headers, allow_private)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(
        self, method: str, url: httpx2.URL, content: bytes, headers: Mapping[str, str], allow_private: bool
    ) -> httpx2.Response:
        host = url.raw_host.decode("ascii")
        port = url.port or (443 if url.scheme == "https" else 80)
        failed: httpx2.TransportError | None = None
        for address in await resolve(host, port, allow_private=allow_private):
            request = self._client.build_request(
                method,
                url.copy_with(host=address),
                content=content,
                headers={**headers, "host": url.netloc.decode("ascii")},
                # The certificate is checked against the name, although the address is what we connect to.
                extensions={"sni_hostname": host},
                timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S),
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failed = error  # nothing was sent: the next address may do
        assert failed is not None, "resolve gives at least one address"
        raise failed


def origin_of(target: str) -> str:
    """``https://host`` or ``https://host:port``, in lower case. BadUrlError."""
    url = checked_url(target)
    return f"{url.scheme}://{url.netloc.decode('ascii').lower()}"


def checked_url(target: str) -> httpx2.URL:
    """An http or https URL with a host, without a user name. BadUrlError."""
    try:
        url = httpx2.URL(target)
        well = url.scheme in ("http", "https") and bool(url.host) and not url.userinfo
    except (httpx2.InvalidURL, UnicodeError) as error:  # UnicodeError: a host name that is not valid IDNA
        raise BadUrlError("not a URL") from error
    if not well:
        raise BadUrlError("needs an http or https URL without a user name")
    if url.port is not None and not 0 < url.port < 65_536:
        raise BadUrlError("no such port")
    return url

"""What can go wrong with a call: one tree, and the one place where httpx2's errors and answers become it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

DETAIL_CHARS_MAX = 500  # of an answer that is no problem document, such as a proxy's page


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong in a request. `pointer`: a JSON pointer into the body, empty for the whole."""

    detail: str = ""
    pointer: str = ""


class _Document(msgspec.Struct, frozen=True):
    code: str
    detail: str = ""
    request_id: str = ""
    server_time: int | None = None
    errors: tuple[Fault, ...] = ()


class ClientError(Exception):
    """Everything that this package raises by itself."""


class ProblemError(ClientError):
    """The API refused. `code` is for programs, `detail` for people, `request_id` for whoever runs the API.

    `errors`: what is wrong where in the body. `retry_after_s`: how long the API asks to wait, None when it
    does not say. `server_time`: the API's clock in unix ms, with code clock_skew.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str = "",
        *,
        errors: tuple[Fault, ...] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
        server_time: int | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {detail}" if detail else f"{status} {code}")
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.request_id = errors, request_id
        self.retry_after_s, self.server_time = retry_after_s, server_time


class UnreachableError(ClientError):
    """Nobody answered, or the connection broke: whether the request was worked on is not known."""


class UnexpectedAnswerError(ClientError):
    """An answer that is not what the description says: the API is newer, or something between answers."""


class CutOffError(ClientError):
    """A stream ended without its end marker: what was read is true, but it is not all."""


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> ProblemError:
    """The refusal that an answer is; of one that NodePulse did not write with code ``http_<status>``."""
    retry_after_s = _seconds(headers.get("retry-after", ""))
    request_id = headers.get("x-request-id", "")
    try:
        document = msgspec.json.decode(body, type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text = body[:DETAIL_CHARS_MAX].decode("utf-8", "replace").strip()
        return ProblemError(
            status, f"http_{status}", text, request_id=request_id, retry_after_s=retry_after_s
        )
    return ProblemError(
        status,
        document.code,
        document.detail,
        errors=document.errors,
        request_id=document.request_id or request_id,
        retry_after_s=retry_after_s,
        server_time=document.server_time,
    )


def _seconds(retry_after: str) -> float | None:
    """Retry-After in its two forms: seconds, and a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())

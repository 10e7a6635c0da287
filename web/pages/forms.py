"""Forms: sent as plain POSTs, answered by 303, and shown again in place with what the API refused.

What may be filled in is the API's to judge; here is only how its answer comes back to whoever filled it in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from quart import Response, request

from web.pages.asking import ApiError
from web.pages.pages import see_other

Given = Mapping[str, str]
# Of these the whole page is the answer: what the form is about is not there, or nobody is signed in.
_NOT_IN_PLACE = (401, 404)


class Attempt(msgspec.Struct, frozen=True):
    """A form that was refused: which, why, and what was in it. Empty: none was."""

    form: str = ""
    status: int = 200
    detail: str = ""
    errors: tuple[Mapping[str, str], ...] = ()
    given: Given = {}

    def of(self, form: str) -> bool:
        """Whether this form was refused."""
        return self.form == form

    def value(self, form: str, name: str, default: object = "") -> str:
        """What shall stand in a field: what was filled in, if this form was refused."""
        text = self.given.get(name, "") if self.of(form) else default
        return "" if text is None else str(text)


NONE = Attempt()


def fault(detail: str, field: str) -> ApiError:
    """What a page itself finds wrong in a field, in the form in which the API would say it."""
    return ApiError(422, {"detail": detail, "errors": [{"detail": detail, "pointer": f"/{field}"}]})


async def given_fields() -> dict[str, str]:
    """All fields of the form that was sent, without blanks around them; of several values the first."""
    return {str(name): str(value).strip() for name, value in (await request.form).items()}


async def submit(
    form: str,
    send: Callable[[Given], Awaitable[str]],
    *,
    again: Callable[[Attempt], Awaitable[Response]],
) -> Response:
    """Have `send` do what the form says; it answers the path that shows it. Refused: the page `again`."""
    given = await given_fields()
    try:
        return see_other(await send(given))
    except ApiError as error:
        if error.status in _NOT_IN_PLACE:
            raise
        return await again(refused(form, given, error))


def refused(form: str, given: Given, error: ApiError) -> Attempt:
    errors: Any = error.problem.get("errors") or ()
    # One fault that says just what the whole says is not said twice.
    told = tuple(each for each in errors if each.get("detail") != error.detail or each.get("pointer"))
    return Attempt(form, error.status, error.detail, told, given)

"""Who may ask the workbench anything: the browser that was given its address, and no other page.

The address holds a random token, which is exchanged for a cookie at once, so that it does not stay
in the address line. Against other pages in the same browser: the cookie is SameSite=Strict and out
of reach of scripts, what changes anything needs a header that only the workbench's own page knows
and the browser's word that it comes from there, and no name but this machine's own is answered to,
so that a name which is made to point here (DNS rebinding) gets nothing.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
TOKEN: Final = "token"
CSRF_HEADER: Final = "x-workbench"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex",
}
_SAFE: Final = frozenset({"GET", "HEAD"})
Next = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Guard:
    """Lets those in who know the token.

    Attributes:
        token: In the address that is printed.
        csrf: In the header of what changes anything.
    """

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    async def __call__(self, request: Request, call_next: Next) -> Response:
        """Answer a request, or have it answered, and set the headers that all answers have."""
        answer = self._refusal(request) or await call_next(request)
        answer.headers.update(HEADERS)
        return answer

    def _refusal(self, request: Request) -> Response | None:
        if _host(request.headers.get("host", "")) not in HOSTS:
            return PlainTextResponse("This address is not answered to.\n", 421)
        given = request.query_params.get(TOKEN)
        if given is not None and request.method in _SAFE:
            return self._enter(request) if self._is_token(given) else _closed()
        if not self._is_token(request.cookies.get(self._cookie(request), "")):
            return _closed()
        if request.method not in _SAFE and not self._is_own(request):
            return PlainTextResponse("The request does not come from the workbench.\n", 403)
        return None

    def _enter(self, request: Request) -> Response:
        answer = RedirectResponse(request.url.path, 303)
        cookie = self._cookie(request)
        answer.set_cookie(cookie, self.token, httponly=True, samesite="strict", path="/")
        return answer

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _is_own(self, request: Request) -> bool:
        """Return whether a request that changes something comes from the workbench's page."""
        headers = request.headers
        if not hmac.compare_digest(headers.get(CSRF_HEADER, "").encode(), self.csrf.encode()):
            return False
        if headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return False
        origin = headers.get("origin")
        return origin is None or origin.partition("://")[2] == headers.get("host")

    @staticmethod
    def _cookie(request: Request) -> str:
        """Return the cookie's name: cookies know no port, and there may be two workbenches."""
        return f"workbench-{request.headers['host'].rpartition(':')[2]}"


def _host(header: str) -> str:
    """Return the name in a Host header, without its port."""
    name, colon, port = header.rpartition(":")
    return name.lower() if colon and port.isdigit() else header.lower()


def _closed() -> Response:
    return PlainTextResponse(
        "Open the address that python -m jobs.review printed, with its token.\n", 403
    )

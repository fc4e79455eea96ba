"""A radiograph that is dropped on a page: what the job would say of it. Nothing is kept.

Each request brings the file's bytes and takes the answer away; the server has no memory of them,
so that for several radiographs of one joint the page sends their answers back.
"""

import hashlib
import threading
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from implant_model.errors import ArchiveError, UsageError
from implant_model.identification import Identification, identify, read_radiograph
from implant_model.limits import MIB
from implant_model.package.load import ModelPackage
from jobs.auditing.package_facts import facts_of
from jobs.entry.command import DISCLAIMER
from jobs.pages.page import called, environment, percent
from jobs.pages.wording import OUTCOMES, REASONS, novelty_sentence
from jobs.reviewing.endpoints import (
    HANDLERS,
    MAX_BODY,
    TEMPLATES,
    read_json,
    reference,
    samples_of,
    static,
)
from jobs.reviewing.guard import Guard
from jobs.reviewing.heat import Heat
from jobs.reviewing.neighbours import Neighbour, Neighbours
from jobs.reviewing.one_joint import answer_together, parse, to_text
from jobs.reviewing.originals import Original, Originals, rejected

MAX_BYTES: Final = 256 * MIB


class Trial:
    """Answers for one model.

    Args:
        model: URI of its package.
        package: The same, loaded.
        originals: Decodes for people.
        guard: The page's secrets.
        heat: Draws saliency.
        neighbours: Finds references; None where the package has none.
    """

    def __init__(
        self,
        model: str,
        package: ModelPackage,
        originals: Originals,
        guard: Guard,
        heat: Heat,
        neighbours: Neighbours | None = None,
    ) -> None:
        self._model = model
        self._package = package
        self._originals = originals
        self._guard = guard
        self._heat = heat
        self._neighbours = neighbours
        self._lock = threading.Lock()
        self._pages = environment(TEMPLATES)
        titles = {i.name: called(i.name, i.manufacturer, i.product) for i in package.catalogue}
        self._pages.filters |= {"called": lambda name: titles.get(name, name)}
        self._pages.globals |= {"disclaimer": DISCLAIMER, "csrf": guard.csrf, "package": package}

    def application(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/", self.home),
            Route("/identify", self.identify, methods=["POST"]),
            Route("/joint", self.joint, methods=["POST"]),
            Route("/samples", self.samples, methods=["POST"]),
            Route("/saliency", self.saliency, methods=["POST"]),
            Route("/reference/{place:int}", partial(reference, self._neighbours)),
            Route("/static/{name}", static),
            Route("/favicon.ico", lambda _request: Response(status_code=204)),
        ]
        guarded = Middleware(BaseHTTPMiddleware, dispatch=self._guard.__call__)
        return Starlette(routes=routes, middleware=[guarded], exception_handlers=HANDLERS)

    def home(self, _request: Request) -> Response:
        """Return the page that radiographs are dropped on."""
        return HTMLResponse(self._pages.get_template("trial.html.j2").render())

    async def identify(self, request: Request) -> Response:
        """Return what the job would say, a part of the page."""
        return HTMLResponse(await run_in_threadpool(self._answer, await body_of(request)))

    def _answer(self, data: bytes) -> str:
        answer = self._identified(data)
        page, scale = self._pages.get_template("answer.html.j2"), self._package.novelty
        return page.render(
            answer=answer,
            kept=to_text(answer, hashlib.sha256(data).hexdigest()),
            near=self._near(answer),
            usual=None if self._neighbours is None else self._neighbours.usual,
            strangeness=None
            if answer.novelty is None
            else novelty_sentence(answer.novelty, scale.threshold, scale.known_pass_rate),
            meaning=OUTCOMES[answer.outcome],
            why=None if answer.reason is None else REASONS[answer.reason],
            percent=percent,
        )

    async def joint(self, request: Request) -> Response:
        """Return what several answers say together, a part of the page."""
        body = read_json(await body_of(request, MAX_BODY))
        rows = parse(body, self._package.catalogue.names)
        together = answer_together(rows, facts_of(self._package))
        page = self._pages.get_template("joint.html.j2")
        return HTMLResponse(page.render(joint=together, total=len(rows), percent=percent))

    def _near(self, answer: Identification) -> dict[str, list[Neighbour]]:
        """Return the nearest references of the best implants and of all candidates."""
        if self._neighbours is None or answer.image_HW is None:
            return {}
        names = dict.fromkeys([*(name for name, _ in answer.top), *answer.candidates])
        return self._neighbours.near(answer.image_HW, list(names))

    def _identified(self, data: bytes) -> Identification:
        """Return the job's own answer; one at a time, since its decoder is one process."""
        with self._lock:
            return identify(data, self._model)

    async def samples(self, request: Request) -> Response:
        """Return the radiograph's own samples."""
        found = await run_in_threadpool(self._decoded, await body_of(request))
        return samples_of(found)

    def _decoded(self, data: bytes) -> Original:
        try:
            member = read_radiograph(data)
        except ArchiveError as error:
            return Original(None, trouble=f"It cannot be read: {error.reason}.")
        if member.data is None:
            return rejected(member.reason)
        return self._originals.decode(bytes(member.data))

    async def saliency(self, request: Request) -> Response:
        """Return what speaks for the best implant, as PNG."""
        found = await run_in_threadpool(self._drawn, await body_of(request))
        if found is None:
            return JSONResponse({"trouble": "It is no picture that the model may see."}, 409)
        return Response(found, media_type="image/png")

    def _drawn(self, data: bytes) -> bytes | None:
        answer = self._identified(data)
        if answer.image_HW is None or answer.implant is None:
            return None
        return self._heat.of_image(answer.image_HW, answer.implant.name)


async def body_of(request: Request, most: int = MAX_BYTES) -> bytes:
    """Read a file that is sent, in memory, of at most so many bytes.

    Raises:
        UsageError: It is empty or too large.
    """
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise UsageError(f"The file has more than {most / MIB:g} MiB.")
        parts.append(chunk)
    if not size:
        raise UsageError("The file is empty.")
    return b"".join(parts)

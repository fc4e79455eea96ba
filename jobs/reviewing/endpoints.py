"""The workbench's pages and requests, as a Starlette application."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from implant_model.errors import ImplantError, StorageError, UsageError
from jobs.auditing.audit_page import called_implants
from jobs.deciding.decisions import (
    DECISIONS,
    Decision,
    Judgement,
    Queue,
    export_csv,
    export_parquet,
)
from jobs.deciding.standing import NOTHING
from jobs.entry.command import DISCLAIMER
from jobs.pages.page import TEMPLATES as PAGES
from jobs.pages.page import environment, interval, number, percent
from jobs.reviewing.cases import Case, Radiograph
from jobs.reviewing.guard import HEADERS, Guard
from jobs.reviewing.heat import Heat
from jobs.reviewing.neighbours import Neighbours
from jobs.reviewing.originals import Original
from jobs.reviewing.workbench import Verdict, Workbench

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = {"workbench.css": "text/css", "viewer.js": "text/javascript",
                 "reading.js": "text/javascript", "trial.js": "text/javascript"}  # fmt: skip
MAX_BODY: Final = 64 << 10
LINES: Final = 100
"""Cases on one page of the list."""
QUEUES: Final = {
    Queue.WORKLIST: ("Worklist", "Records that the images contradict, likeliest error first."),
    Queue.SAMPLE: ("Sample", "Drawn over all verdicts, shown without what the model says."),
    Queue.SECOND: ("Second reading", "Read by another; what that one found is not shown."),
    Queue.ARBITRATION: ("Arbitration", "Two other readers found different things."),
}
JUDGEMENTS: Final = {
    Judgement.RECORD_WRONG: "Record wrong",
    Judgement.RECORD_RIGHT: "Model wrong, record right",
    Judgement.BAD_IMAGE: "Image wrong or unusable",
    Judgement.OTHER_OPERATION: "Image of another operation",
    Judgement.CANNOT_TELL: "Cannot tell",
}
MADE_ANEW: Final = "The audit was made anew: start the workbench again."
BLIND: Final = JUDGEMENTS | {Judgement.RECORD_RIGHT: "Record right"}


class Endpoints:
    """Answers requests about one workbench.

    Args:
        workbench: Whose.
        guard: Its secrets.
        heat: Draws saliency.
        neighbours: Finds references; None where the package has none.
    """

    def __init__(
        self, workbench: Workbench, guard: Guard, heat: Heat, neighbours: Neighbours | None = None
    ) -> None:
        self._bench = workbench
        self._guard = guard
        self._heat = heat
        self._neighbours = neighbours
        self._pages = environment(TEMPLATES)
        self._pages.filters |= {
            "called": partial(called_implants, workbench.audit.titles),
            "interval": interval,
            "number": number,
        }
        self._pages.globals |= {"disclaimer": DISCLAIMER, "csrf": guard.csrf, "queues": QUEUES}

    def application(self) -> Starlette:
        """Return the application."""
        routes = [
            Route("/", self.home),
            Route("/read/{queue}", self.read),
            Route("/list/{queue}", self.list),
            Route("/next/{queue}", self.next),
            Route("/case/{queue}/{case}", self.case),
            Route("/pixels/{case}/{image:int}", self.pixels),
            Route("/saliency/{queue}/{case}/{image:int}", self.saliency),
            Route("/near/{queue}/{case}/{image:int}", self.near),
            Route("/reference/{place:int}", partial(reference, self._neighbours)),
            Route("/decide", self.decide, methods=["POST"]),
            Route("/undo", self.undo, methods=["POST"]),
            Route("/decisions.csv", self.csv),
            Route("/decisions.parquet", self.parquet),
            Route("/static/{name}", static),
            Route("/favicon.ico", lambda _request: Response(status_code=204)),
        ]
        guarded = Middleware(BaseHTTPMiddleware, dispatch=self._guard.__call__)
        return Starlette(routes=routes, middleware=[guarded], exception_handlers=HANDLERS)

    def home(self, request: Request) -> Response:
        """What is to be done, what is known."""
        bench, standing = self._bench, self._bench.standing()
        return self._page(
            "home.html.j2",
            audit=bench.audit,
            reader=bench.reader,
            progress={name: bench.progress(name, standing) for name in Queue},
            agreements=bench.agreements(standing),
            verified=bench.verified(),
            num_decisions=len(bench.decisions()),
            num_stale=bench.num_stale,
            judgements=JUDGEMENTS,
            notice=MADE_ANEW if bench.audit.is_replaced else "",
        )

    def read(self, request: Request) -> Response:
        """Return the page in which cases are read; its script asks for them."""
        name = _queue(request)
        first = request.query_params.get("case", "")
        return self._page(
            "read.html.j2",
            queue=name,
            words=request.query_params.get("q", ""),
            first=first if first in self._bench.audit.cases else "",
            reader=self._bench.reader,
        )

    def list(self, request: Request) -> Response:
        """Return the cases of a queue and what is decided of them."""
        name, words = _queue(request), request.query_params.get("q", "")
        standing = self._bench.standing()
        cases = [self._bench.audit.cases[c] for c in self._bench.queue(name)]
        wanted = words.lower().split()
        cases = [case for case in cases if case.has(wanted)]
        start = max(_whole(request.query_params.get("start", "0")), 0)
        lines = [
            (case, self._bench.own(standing.get(case.id, NOTHING)))
            for case in cases[start : start + LINES]
        ]
        return self._page(
            "list.html.j2",
            queue=name,
            words=words,
            lines=lines,
            start=start,
            step=LINES,
            total=len(cases),
            is_blind=partial(self._bench.is_blind, name=name),
            judgements=JUDGEMENTS,
        )

    def next(self, request: Request) -> Response:
        """Return the next case of a queue, and the one after it, to be fetched ahead."""
        words, after = (request.query_params.get(key, "") for key in ("q", "after"))
        return JSONResponse(self._following(_queue(request), words, after or None))

    def _following(self, name: Queue, words: str, after: str | None) -> dict[str, Any]:
        bench, standing = self._bench, self._bench.standing()
        progress = bench.progress(name, standing, words)
        case = bench.following(progress, name, after)
        bench.read_ahead(progress, name, case)
        then = None if case is None else bench.following(progress, name, case)
        return {
            "case": case,
            "then": None if then == case else then,
            "left": len(progress.left),
            "done": progress.done,
            "total": progress.total,
            "rate": self._rate(),
        }

    def _rate(self) -> str:
        """Return the rate of errors so far, for the head of the page; empty without a sample.

        Where the audit was made anew, that is what the page has to state.
        """
        if self._bench.audit.is_replaced:
            return MADE_ANEW
        verified = self._bench.verified()
        if verified is None or not verified.verified or math.isnan(verified.best.value):
            return ""
        figure = verified.best
        return (
            f"Wrong: {percent(figure.value)} ({interval(figure)}), {verified.verified:,} verified"
        )

    def case(self, request: Request) -> Response:
        """Return one case, a part of the page."""
        name, case = _queue(request), self._case(request)
        standing = self._bench.standing().get(case.id, NOTHING)
        own = self._bench.own(standing)
        blind = self._bench.is_blind(case, name) and own is None
        package = self._bench.audit.package
        self._bench.begin(case.id)
        return self._page(
            "case.html.j2",
            case=case,
            queue=name,
            radiographs=self._bench.audit.radiographs(case.id),
            blind=blind,
            own=own,
            others=_others(standing.readings) if name is Queue.ARBITRATION else [],
            judgements=BLIND if blind else JUDGEMENTS,
            labels=BLIND if self._bench.is_blind(case, name) else JUDGEMENTS,
            threshold=None if package is None else package.novelty.threshold,
            has_heat=self._heat.is_there and not blind,
            has_references=self._neighbours is not None and not blind,
            implants=sorted(self._bench.audit.titles.items()),
            percent=percent,
        )

    def pixels(self, request: Request) -> Response:
        """Return a radiograph's samples, row by row, or a sentence why there are none."""
        return samples_of(self._original(request))

    def _original(self, request: Request) -> Original:
        images = self._bench.audit.radiographs(self._case(request).id)
        place = request.path_params["image"]
        if place >= len(images):
            raise UsageError("The record has no such radiograph.")
        image = images[place]
        if image.place is None:
            return Original(None, trouble=image.trouble)
        return self._bench.originals.original(image.place)

    def saliency(self, request: Request) -> Response:
        """Return what speaks for the implant that was seen, as PNG."""
        case, image = self._not_blind(request)
        if image.place is None or case.seen is None:
            raise UsageError("There is nothing to show of this radiograph.")
        found = self._heat.draw(self._bench.originals, image.place, case.seen)
        if isinstance(found, str):
            return JSONResponse({"trouble": found}, 409)
        return Response(found, media_type="image/png")

    def near(self, request: Request) -> Response:
        """Return the nearest references of the radiograph's candidates, a part of the page."""
        case, image = self._not_blind(request)
        if image.place is None or image.predicted is None or self._neighbours is None:
            raise UsageError("There is nothing to compare with this radiograph.")
        prepared = self._bench.originals.prepared(image.place)
        if isinstance(prepared, Original) or prepared.image is None:
            trouble = prepared.trouble if isinstance(prepared, Original) else None
            return JSONResponse({"trouble": trouble or "It is no picture for the model."}, 409)
        names = candidates_of(image.predicted, case.claimed, self._bench.audit.titles)
        near = self._neighbours.near(prepared.image, names)
        return self._page("references.html.j2", near=near, usual=self._neighbours.usual)

    def _not_blind(self, request: Request) -> tuple[Case, Radiograph]:
        """Return a case and one of its radiographs, where what the model says may be shown."""
        name, case = _queue(request), self._case(request)
        own = self._bench.own(self._bench.standing().get(case.id, NOTHING))
        if self._bench.is_blind(case, name) and own is None:
            raise UsageError("The sample is read without what the model says.")
        images = self._bench.audit.radiographs(case.id)
        place = request.path_params["image"]
        if place >= len(images):
            raise UsageError("The record has no such radiograph.")
        return case, images[place]

    async def decide(self, request: Request) -> Response:
        """Keep a decision, and return what follows."""
        body = await _body(request)
        verdict = _verdict(body)
        await run_in_threadpool(self._bench.decide, verdict)
        words = str(body.get("q", ""))
        follows = await run_in_threadpool(self._following, verdict.queue, words, verdict.case)
        return JSONResponse(follows)

    async def undo(self, request: Request) -> Response:
        """Undo the last decision, and return its case."""
        return JSONResponse({"case": await run_in_threadpool(self._bench.undo)})

    def csv(self, request: Request) -> Response:
        """Return all decisions for a spreadsheet; the file stays beside the audit."""
        return self._export(".csv", export_csv, "text/csv")

    def parquet(self, request: Request) -> Response:
        """Return all decisions for `--merge` on another computer."""
        return self._export(".parquet", export_parquet, "application/vnd.apache.parquet")

    def _export(
        self, suffix: str, write: Callable[[Path, Sequence[Decision]], None], kind: str
    ) -> Response:
        path = self._bench.audit.folder / f"{DECISIONS}{suffix}"
        try:
            write(path, self._bench.decisions())
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
        headers = {"content-disposition": f'attachment; filename="{path.name}"'}
        return Response(data, media_type=kind, headers=headers)

    def _case(self, request: Request) -> Case:
        case = self._bench.audit.cases.get(request.path_params["case"])
        if case is None:
            raise UsageError("The audit has no such case.")
        return case

    def _page(self, template: str, **values: object) -> Response:
        return HTMLResponse(self._pages.get_template(template).render(values))


def samples_of(found: Original) -> Response:
    """Return a radiograph's samples, row by row, or a sentence why there are none."""
    if found.pixels_HW is None:
        return JSONResponse({"trouble": found.trouble}, 410 if found.is_replaced else 409)
    pixels_HW = np.ascontiguousarray(found.pixels_HW)
    kind = pixels_HW.dtype.newbyteorder("<")
    return Response(
        pixels_HW.astype(kind, copy=False).tobytes(),
        media_type="application/octet-stream",
        headers={
            "x-rows": str(pixels_HW.shape[0]),
            "x-columns": str(pixels_HW.shape[1]),
            "x-bits": str(8 * pixels_HW.itemsize),
            "x-reduced": str(found.reduced),
        },
    )


def candidates_of(
    predicted: Mapping[str, Any], claimed: str | None, known: Mapping[str, str]
) -> list[str]:
    """Return implants to compare a radiograph with: the best ones, candidates, and the record's."""
    best = [item["implant"] for item in predicted.get("top") or ()]
    names = dict.fromkeys([*best, *(predicted.get("candidates") or ()), claimed])
    return [name for name in names if name is not None and name in known]


def reference(neighbours: Neighbours | None, request: Request) -> Response:
    """Return the picture of a reference radiograph."""
    if neighbours is None:
        raise UsageError("The package has no references.")
    return Response(neighbours.picture(request.path_params["place"]), media_type="image/png")


def static(request: Request) -> Response:
    """Return a file of the workbench's own: one of a list, never a path."""
    kind = STATIC.get(request.path_params["name"])
    if kind is None:
        raise UsageError("There is no such file.")
    name = request.path_params["name"]
    shared = (PAGES / "style.css").read_bytes() if kind == "text/css" else b""
    return Response(shared + (TEMPLATES / name).read_bytes(), media_type=kind)


def refused(_request: Request, error: Exception) -> Response:
    """Return what was wrong, one sentence."""
    return JSONResponse({"error": str(error)}, 503 if isinstance(error, StorageError) else 400)


def failed(_request: Request, error: Exception) -> Response:
    """Return that the fault is the workbench's own; uvicorn writes it to the terminal."""
    sentence = (
        f"The workbench has failed ({type(error).__name__}); its terminal has the details. Submit "
        "again: what is kept already is not kept twice."
    )
    return JSONResponse({"error": sentence}, 500, HEADERS)  # outside of the guard


HANDLERS: Final = {ImplantError: refused, Exception: failed}


def _others(readings: Mapping[str, Decision]) -> list[Decision]:
    """Return what the readers found in an order that says nothing of who it was."""
    return sorted(readings.values(), key=lambda decision: decision.id)


def _queue(request: Request) -> Queue:
    try:
        return Queue(request.path_params["queue"])
    except ValueError as error:
        raise UsageError("There is no such queue.") from error


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def _body(request: Request) -> dict[str, Any]:
    """Read a small JSON object."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise UsageError("The request is too large.")
    body = read_json(data)
    if not isinstance(body, dict):
        raise UsageError("The request is no JSON object.")
    return body


def read_json(data: bytes) -> Any:
    """Read JSON; whoever sends it may send anything.

    Raises:
        UsageError: It is none, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError("The request is no JSON.") from error


def _verdict(body: Mapping[str, Any]) -> Verdict:
    """Read a decision out of a request; whoever sends it may send anything."""
    texts = {key: body.get(key, "") for key in ("id", "case", "queue", "judgement")}
    texts |= {key: body.get(key, "") for key in ("implant", "note")}
    seconds = body.get("seconds", 0)
    if not all(isinstance(text, str) for text in texts.values()):
        raise UsageError("A text of the decision is none.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise UsageError("The time that the case was looked at is none.")
    try:
        seconds = float(seconds)
    except OverflowError as error:
        raise UsageError("The time that the case was looked at is impossible.") from error
    try:
        texts["queue"], texts["judgement"] = Queue(texts["queue"]), Judgement(texts["judgement"])
    except ValueError as error:
        raise UsageError("The decision is of a kind that there is not.") from error
    return Verdict(**texts, seconds=seconds)

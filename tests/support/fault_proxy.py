"""A small HTTP proxy in front of an object store that fails as networks and stores do.

    proxy.add(Fault("PUT", "unit.parquet", Lose(after=True)))       # stored, but nobody hears of it
    proxy.add(Fault("GET", "a.tar", Cut(1000), skip=1, times=2))    # 2nd and 3rd body break off

Faults hit the requests whose method is equal (`*`: any) and in whose target (path and query,
percent-encoded) the pattern is found; the first that matches and is not used up acts. Each
connection carries one request. PUT, POST and DELETE reach the store one at a time, because moto
looks for an object and creates it in two steps, whereas in S3 a conditional PUT is one.
"""

import asyncio
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.object_store import ObjectStore

_HEAD_BYTES = 1 << 20
_QUIET_S = 10


@dataclass(frozen=True)
class Request:
    """What a client sent; names of headers in small letters."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The store answers an error, before or after the effect of the request."""

    status: int
    code: str
    after: bool = False


@dataclass(frozen=True)
class Lose:
    """The connection ends without a reply, before or after the effect of the request.

    `call` happens first, if given: to kill the client, say, so that it never tries again.
    """

    after: bool
    call: Callable[[], object] | None = None


@dataclass(frozen=True)
class Hang:
    """No reply comes, before or after the effect, until the client has waited long enough."""

    after: bool
    seconds: float = 60


@dataclass(frozen=True)
class Slow:
    """The reply comes in pieces of so many bytes, with a pause before each."""

    size: int
    seconds: float


@dataclass(frozen=True)
class Cut:
    """The connection ends after so many bytes of the reply's body."""

    size: int


@dataclass(frozen=True)
class Shorten:
    """The reply's body has so many bytes, and its Content-Length agrees."""

    size: int


@dataclass(frozen=True)
class Flip:
    """One bit of the reply's body is wrong, at this byte."""

    position: int


@dataclass(frozen=True)
class Ignore:
    """The store does not know this header of the request (small letters)."""

    header: str


@dataclass(frozen=True)
class Replace:
    """The store sees another value of this header of the request (small letters)."""

    header: str
    value: str


@dataclass(frozen=True)
class First:
    """Something happens before the request reaches the store."""

    call: Callable[[], object]


@dataclass(frozen=True)
class Delay:
    """The request waits."""

    seconds: float


Action = Answer | Lose | Hang | Slow | Cut | Shorten | Flip | Ignore | Replace | First | Delay


@dataclass
class Fault:
    """What happens to which requests: of those that match, `times`, after letting `skip` pass."""

    method: str
    pattern: str
    action: Action
    skip: int = 0
    times: int = 1

    def takes(self, request: Request) -> bool:
        """Whether it acts on this request; counts it."""
        matches = self.method in ("*", request.method) and re.search(self.pattern, request.target)
        if not matches or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class FaultProxy:
    """A proxy on a free port of 127.0.0.1, in a thread of this process.

    Attributes:
        port: Its port.
        requests: All requests so far, in the order in which they came.
        most_at_once: Most requests that were under way at the same time.
    """

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._upstream_port = upstream_port
        self._faults: list[Fault] = []
        self._under_way = 0
        self._handlers: set[asyncio.Task[None] | None] = set()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy")

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, *faults: Fault) -> None:
        self._faults.extend(faults)

    def reset(self) -> None:
        """Forgets faults and requests, once nothing is under way any more."""
        deadline = time.monotonic() + _QUIET_S
        while self._under_way and time.monotonic() < deadline:
            threading.Event().wait(0.01)  # some tests make time.sleep return at once
        self._faults.clear()
        self.requests.clear()
        self.most_at_once = 0

    def unused(self) -> list[Fault]:
        """Faults that have not happened as often as they should."""
        return [fault for fault in self._faults if fault.times]

    def sent(self, method: str, pattern: str = "") -> list[Request]:
        """The requests of a method so far in whose target the pattern is found."""
        return [r for r in self.requests if r.method == method and re.search(pattern, r.target)]

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("The fault proxy did not start within 10 s.")

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        self._stopping = asyncio.Event()
        self._writes = asyncio.Lock()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The loop itself keeps only weak references: a handler that waits may be collected.
        task = asyncio.current_task()
        self._handlers.add(task)
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            request = await _read_request(reader, writer)
            self.requests.append(request)
            action = next((f.action for f in self._faults if f.takes(request)), None)
            reply = await self._reply(request, action)
            await _send(writer, reply, action)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # a client that goes away in the middle is nobody's error here
        finally:
            self._under_way -= 1
            await _close(writer)
            self._handlers.discard(task)

    async def _reply(self, request: Request, action: Action | None) -> bytes:
        match action:
            case Answer(after=False) | Lose(after=False):
                return _error(action)
            case Hang(after=False, seconds=seconds):
                await asyncio.sleep(seconds)
                return b""
            case First(call):
                await asyncio.to_thread(call)
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Ignore(header):
                request.headers.pop(header, None)
            case Replace(header, value):
                request.headers[header] = value
        reply = await self._forward(request)
        match action:
            case Answer() | Lose():
                return _error(action)
            case Hang(seconds=seconds):
                await asyncio.sleep(seconds)
                return b""
            case Cut() | Shorten() | Flip():
                return _damaged(reply, action)
        return reply

    async def _forward(self, request: Request) -> bytes:
        async with contextlib.AsyncExitStack() as stack:
            if request.method in ("PUT", "POST", "DELETE"):
                await stack.enter_async_context(self._writes)
            reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            stack.push_async_callback(_close, writer)
            headers = {**request.headers, "connection": "close"}
            headers.pop("expect", None)
            lines = [f"{request.method} {request.target} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + request.body)
            await writer.drain()
            return await reader.read()


async def _send(writer: asyncio.StreamWriter, reply: bytes, action: Action | None) -> None:
    step = action.size if isinstance(action, Slow) else max(len(reply), 1)
    for start in range(0, len(reply), step):
        if isinstance(action, Slow):
            await asyncio.sleep(action.seconds)
        writer.write(reply[start : start + step])
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = start.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if "transfer-encoding" in headers:
        raise NotImplementedError("The fault proxy reads bodies with a Content-Length only.")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body)


def _error(action: Answer | Lose) -> bytes:
    if isinstance(action, Lose):
        if action.call is not None:
            action.call()
        return b""
    body = f"<Error><Code>{action.code}</Code><Message>as told</Message></Error>".encode()
    head = f"HTTP/1.1 {action.status} Told\r\nContent-Type: application/xml\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def _damaged(reply: bytes, action: Cut | Shorten | Flip) -> bytes:
    head, _, body = reply.partition(b"\r\n\r\n")
    match action:
        case Cut(size):
            body = body[:size]
        case Shorten(size):
            body = body[:size]
            length = f"Content-Length: {len(body)}".encode()
            head = re.sub(rb"(?i)content-length: *\d+", length, head)
        case Flip(position):
            body = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def running_fault_proxy(upstream_port: int) -> Iterator[FaultProxy]:
    """Starts a proxy in front of a store on 127.0.0.1, and stops it."""
    proxy = FaultProxy(upstream_port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()


@pytest.fixture(scope="session")
def shared_fault_proxy(object_store: ObjectStore) -> Iterator[FaultProxy]:
    """One proxy for the session: a client is made once for each endpoint, and takes 0.2 s."""
    with running_fault_proxy(object_store.port) as proxy:
        yield proxy


@pytest.fixture
def fault_proxy(
    shared_fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """A proxy without faults before the session's object store; AWS_ENDPOINT_URL points at it."""
    shared_fault_proxy.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", shared_fault_proxy.endpoint)
    yield shared_fault_proxy
    shared_fault_proxy.reset()

"""One model, asked by many at once: a thread owns it, and what arrives together is answered together.

Requests wait in a bounded queue. Whenever the thread is free, it takes those that wait, up to a batch of questions,
and answers them in one go. What it sees of a picture is kept for the next question about it.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

from PIL import Image

from cores.errors import UserError
from cores.inference.facade import Cores, CoresInWords
from cores.inference.options import Options
from cores.inference.segmentation import Segmentation
from cores.serving.feature_cache import FeatureCache
from cores.serving.gathering import Gathering
from cores.serving.pictures import Room, decoded, key_of_content, pixels_of
from cores.serving.queries import Harmless
from cores.serving.settings import Settings

log = logging.getLogger(__name__)
READERS = 2  # threads that decode pictures


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits for the model.

    `key`: of its picture; `seen`: what the model saw of it, None: `image` has to be looked at first; `answer`: where
    the answers go; once it is cancelled, nobody wants them. `tell`: takes pieces of the answer of a single query.
    `limit`: says whether there is time for a further token; None: there always is.
    """

    key: str
    seen: Any
    image: Image.Image | None
    queries: Sequence[str]
    options: Options
    tell: Callable[[str], None] | None = None
    limit: Callable[[], bool] | None = None
    answer: Future[list[Segmentation]] = field(default_factory=Future)
    told: str = ""
    heard: str = ""

    @property
    def questions(self) -> int:
        return len(self.queries)

    def hear(self, piece: str) -> bool:
        """Tell what the answer says, but not again what was told before it was begun anew. Shall it go on?"""
        self.heard += piece
        if self.tell is not None and len(self.heard) > len(self.told):
            self.tell(self.heard[len(self.told) :])
            self.told = self.heard
        return not self.answer.cancelled() and (self.limit is None or self.limit())

    def over(self, found: list[Segmentation] | Exception) -> None:
        """Hand the answers, or what went wrong, to whoever waits, if anybody still does."""
        try:
            if isinstance(found, Exception):
                self.answer.set_exception(found)
            else:
                self.answer.set_result(found)
        except InvalidStateError:  # cancelled
            pass


class Engine:
    """`await engine.segment(...)` and `async for piece in engine.stream(...)`, from any number of tasks of one loop.

    Args: `cores`: from `cores.load`; nobody else may use it meanwhile; `observe`: is told how many questions were
    answered together, after each batch.

    `cache`: of features. `ready`: has it answered its first question? `working`: requests that are not answered yet.
    """

    def __init__(
        self,
        cores: Cores | CoresInWords,
        settings: Settings | None = None,
        observe: Callable[[int], None] = lambda questions: None,
    ) -> None:
        self.cores, self.settings = cores, settings or Settings()
        self.cache = FeatureCache(self.settings.cache)
        self.ready, self.working = False, 0
        self._observe = observe
        self._line: Gathering[Job] = Gathering(self.settings.waiting, self.settings.batch, self.settings.gather)
        marks: tuple[str, ...] = ()
        if isinstance(cores, Cores):
            marks = tuple(cores.processor.prompt.level_tokens)
            cores.prefixes.most = self.settings.prefixes
        self._harmless = Harmless(cores.tokenizer, marks)
        self._room = Room(self.settings.pixels_at_once)
        self._readers = ThreadPoolExecutor(READERS, "picture")
        self._worker = Thread(target=self._work, name="model", daemon=True)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._line)

    # -- for those who ask ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the thread and warm the model up; `ready` from then on."""
        self._worker.start()
        await self.segment(Image.new("RGB", (64, 64), "grey"), ["the grey square"])
        self.ready = True

    async def close(self) -> None:
        """Take nothing new, and return when everything that waits is answered."""
        self.ready = False
        self._line.close()
        if self._worker.ident is not None:
            await asyncio.to_thread(self._worker.join)
        self._readers.shutdown(wait=False)

    async def segment(
        self, picture: bytes | Image.Image, queries: Sequence[str], options: Options | None = None
    ) -> list[Segmentation]:
        """The answers to all queries about a picture, in their order; cancelling the task stops the work.

        `max_seconds` of the options counts from this call, with the time in the queue.

        Raises DataError for a picture and UserError for a query that cannot be used, Busy when too many requests
        wait, Closing after `close`.
        """
        return await self._asked(picture, queries, options or Options(), None)

    async def stream(
        self, picture: bytes | Image.Image, query: str, options: Options | None = None
    ) -> AsyncGenerator[str | Segmentation, None]:
        """Pieces of the `answer` as it is said, then all of it. Leaving early stops the work.

        Raises as `segment`.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()

        def tell(piece: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        asked = asyncio.ensure_future(self._asked(picture, [query], options or Options(), tell))
        asked.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            (found,) = await asked
            yield found
        finally:
            asked.cancel()
            await asyncio.wait((asked,))  # whoever closes this knows that the work has been stopped

    async def _asked(
        self,
        picture: bytes | Image.Image,
        queries: Sequence[str],
        options: Options,
        tell: Callable[[str], None] | None,
    ) -> list[Segmentation]:
        asked, limit = self._allowed(queries), options.limit()
        options = replace(options, max_seconds=None)  # each request has its own time, and they are asked together
        self._line.check()
        self.working += 1
        try:
            return await self._answered(picture, asked, options, tell, limit)
        finally:
            self.working -= 1

    async def _answered(
        self,
        picture: bytes | Image.Image,
        asked: list[str],
        options: Options,
        tell: Callable[[str], None] | None,
        limit: Callable[[], bool] | None,
    ) -> list[Segmentation]:
        """Look into the cache, open the picture where it is not there, wait in the queue."""
        loop = asyncio.get_running_loop()
        key = await loop.run_in_executor(self._readers, key_of_content, picture)
        seen = self.cache.get(key)
        if seen is not None:
            return await self._wait(Job(key, seen, None, asked, options, tell, limit))
        async with self._room.of(pixels_of(picture, self.settings.max_pixels)):
            image = await loop.run_in_executor(self._readers, decoded, picture)
            return await self._wait(Job(key, None, image, asked, options, tell, limit))

    async def _wait(self, job: Job) -> list[Segmentation]:
        self._line.put(job)
        return await asyncio.wrap_future(job.answer)

    def _allowed(self, queries: Sequence[str]) -> list[str]:
        """Queries as the model may read them. Raises UserError for too many, empty and too long ones."""
        most, length = self.settings.max_queries, self.settings.max_query
        if not 1 <= len(queries) <= most:
            raise UserError(f"queries: found {len(queries)}, expected 1 to {most} about one picture")
        for query in queries:
            if not query.strip():
                raise UserError("a query is empty: ask for something in words")
            if len(query) > length:
                raise UserError(f"a query has {len(query)} characters, at most {length} are read: say it in fewer")
        return [self._harmless(query) for query in queries]

    # -- the thread that owns the model ---------------------------------------------------------------------------

    def _work(self) -> None:
        while jobs := self._line.take():
            alike: dict[Options, list[Job]] = {}
            for job in jobs:
                alike.setdefault(job.options, []).append(job)
            for some in alike.values():
                self._answer(some)

    def _answer(self, jobs: Sequence[Job]) -> None:
        """Answer some jobs together. Where that goes wrong each is tried alone: one bad picture costs itself only."""
        wanted = [job for job in jobs if not job.answer.cancelled()]
        if not wanted:
            return
        try:
            answers = self._ask(wanted)
        except Exception as error:
            if len(wanted) == 1:
                wanted[0].over(error)
                return
            log.warning("%d requests failed together, each is asked alone: %s", len(wanted), error)
            for job in wanted:
                self._answer([job])
            return
        self._observe(sum(job.questions for job in wanted))
        for job, found in zip(wanted, answers, strict=True):
            job.over(found)

    def _ask(self, jobs: Sequence[Job]) -> list[list[Segmentation]]:
        missing = {job.key: job.image for job in jobs if job.seen is None and job.image is not None}
        looked = dict(zip(missing, self.cores.encode_batch(list(missing.values())), strict=True))
        for key, seen in looked.items():
            self.cache.put(key, seen)
        for job in jobs:
            job.seen, job.image = job.seen if job.seen is not None else looked[job.key], None
            job.heard = ""
        cores: Any = self.cores  # which of the two it is, what it has seen knows
        queries, options = [job.queries for job in jobs], jobs[0].options
        found: list[list[Segmentation]] = cores.ask_batch(
            [job.seen for job in jobs], queries, options, lambda job, query, piece: jobs[job].hear(piece)
        )
        return found

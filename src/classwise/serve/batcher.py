"""Images that wait together go through the model as one batch.

    event loop      admits images, and waits for their answers
    decode threads  bytes -> the model's input
    model thread    takes all images that wait, up to the size of a batch, and runs them at once

Nothing waits for a batch to fill: a single image goes through at once, and while it does, others gather.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from classwise.errors import ImageError
from classwise.serve.figures import Figures
from classwise.serve.limits import Limits
from classwise.serve.model import PreparedImage, ServedModel
from classwise.serve.quota import Quota
from classwise.serve.refusals import Refusal
from classwise.serve.schemas import ImageAnswer


@dataclass(frozen=True)
class _Job:
    """One image on its way. `future`: of the event loop, which alone sets it."""

    data: bytes | bytearray
    future: asyncio.Future[ImageAnswer]


class Batcher:
    """The threads of one service. Everything but `close` is called from the event loop."""

    def __init__(
        self,
        model: ServedModel,
        limits: Limits,
        figures: Figures,
        held: Quota,
        decode_threads: int,
        say: Callable[[str], None],
    ) -> None:
        """`held`: counts images, from their admission until nothing works on them any more; `say` prints errors."""
        self._model = model
        self._batch = limits.batch
        self._figures = figures
        self._held = held
        self._say = say
        self._waiting: queue.SimpleQueue[tuple[_Job, PreparedImage] | None] = queue.SimpleQueue()
        self._decoding = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._running = threading.Thread(target=self._run, name="model", daemon=True)
        self._running.start()

    async def answers(self, images: Sequence[bytes | bytearray]) -> list[ImageAnswer]:
        """The answers for the images in their order. Raises a Refusal with status 503 if the queue is full, and with
        500 if the model failed."""
        loop = asyncio.get_running_loop()
        self._held.acquire(len(images))
        jobs = [_Job(data, loop.create_future()) for data in images]
        for job in jobs:
            self._decoding.submit(self._decode, job)
        try:
            return list(await asyncio.gather(*(job.future for job in jobs)))
        finally:
            for job in jobs:
                job.future.cancel()  # of a request that nobody waits for any more; else it is done already

    def close(self) -> None:
        """Ends the threads once they are done with what they have."""
        self._decoding.shutdown(wait=True)
        self._waiting.put(None)
        self._running.join()

    def _decode(self, job: _Job) -> None:
        """In a decode thread: the bytes of an image to what the model takes."""
        loop = job.future.get_loop()
        if job.future.cancelled():
            loop.call_soon_threadsafe(self._settle, [job], [ImageAnswer()])
            return
        try:
            image_HWC = self._model.prepare(job.data)
        except ImageError as error:
            answer = ImageAnswer(error=error.reason)
        except Exception as error:  # a bug or too little memory: of this image alone
            self._say(f"error: an image failed with {type(error).__name__}: {error}")
            answer = ImageAnswer(error=f"reading it failed with {type(error).__name__}")
        else:
            self._waiting.put((job, image_HWC))
            return
        loop.call_soon_threadsafe(self._settle, [job], [answer])

    def _run(self) -> None:
        """The model thread."""
        while (first := self._waiting.get()) is not None:
            # What has gathered while the model was busy.
            batch = [first]
            ends = False
            while len(batch) < self._batch and not self._waiting.empty():
                following = self._waiting.get()
                if following is None:
                    ends = True
                    break
                batch.append(following)

            jobs = [job for job, _ in batch]
            results = self._results([image_HWC for _, image_HWC in batch])
            first[0].future.get_loop().call_soon_threadsafe(self._settle, jobs, results)
            if ends:
                return

    def _results(self, images: Sequence[PreparedImage]) -> Sequence[ImageAnswer | Refusal]:
        """What comes of a batch: answers, or for all of them the same refusal."""
        started = time.perf_counter()
        try:
            answers = self._model.answers(images)
        except Exception as error:  # such as too little memory: the next batch may do
            self._say(f"error: the model failed with {type(error).__name__}: {error}")
            return [Refusal(500, "the model failed; the service's log says how")] * len(images)
        self._figures.batches.observe(len(images))
        self._figures.model_seconds.inc(time.perf_counter() - started)
        return answers

    def _settle(self, jobs: Sequence[_Job], results: Sequence[ImageAnswer | Refusal]) -> None:
        """In the event loop: hand over the results."""
        self._held.release(len(jobs))
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():
                continue
            if isinstance(result, Refusal):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

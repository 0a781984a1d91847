"""`sameas`, killed with SIGKILL at one point of a switch: python mortal_promotion.py POINT ARGUMENTS...

switch: just before CURRENT is replaced; switched: just after it; published: after the first batch that is
published then.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from sameas_command import main
from stream.engine.interface import Batch, MessageProcessor
from stream.events import Message
from stream.state.generations import Generations
from stream.worker.pipeline import Pipeline, Send


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


point = sys.argv.pop(1)
if point == "switch":

    def unswitched(self: Generations, name: str) -> None:
        die()

    Generations.switch = unswitched  # type: ignore[method-assign]
elif point == "switched":
    switch = Generations.switch

    def switched(self: Generations, name: str) -> None:
        switch(self, name)
        die()

    Generations.switch = switched  # type: ignore[method-assign]
else:
    replace = Pipeline.replace

    async def replaced(
        self: Pipeline, take_over: Callable[[Any], MessageProcessor], thread: Executor, send: Send
    ) -> None:
        publish = self._publish

        async def published(batch: Batch, send: Send, messages: Sequence[Message] = ()) -> None:
            await publish(batch, send, messages)
            await self.settle()
            die()

        self._publish = published  # type: ignore[method-assign]
        await replace(self, take_over, thread, send)

    Pipeline.replace = replaced  # type: ignore[method-assign]
main()

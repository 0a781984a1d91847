"""`sameas`, killed with SIGKILL at one point of a switch: python mortal_promotion.py POINT ARGUMENTS...

switch: just before CURRENT is replaced; switched: just after it; published: after the first batch that is
published then.
"""

import os
import signal
import sys
from typing import Any

from stream import generations
from stream.cli import main
from stream.work import Work


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


point = sys.argv.pop(1)
if point == "switch":
    generations.Generations.switch = die  # type: ignore[method-assign]
elif point == "switched":
    switch = generations.Generations.switch

    def switched(self: generations.Generations, name: str) -> None:
        switch(self, name)
        die()

    generations.Generations.switch = switched  # type: ignore[method-assign]
else:
    replace = Work.replace

    async def replaced(self: Work, *arguments: Any) -> None:
        publish = self._publish

        async def published(*batch: Any) -> None:
            await publish(*batch)
            await self.settle()
            die()

        self._publish = published  # type: ignore[method-assign]
        await replace(self, *arguments)

    Work.replace = replaced  # type: ignore[method-assign]
main()

"""The log stays readable: one place in the code, and so one client, cannot fill it."""

from __future__ import annotations

import logging

from lib.boot.log import Calm


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def test_a_place_that_says_too_much_is_cut_and_counted() -> None:
    now = 0.0
    calm = Calm(lambda: now)
    kept = [_Kept(), _Kept()]
    logger = logging.Logger("uvicorn.error")
    for handler in kept:
        handler.addFilter(calm)
        logger.addHandler(handler)

    def flood(times: int) -> None:
        for number in range(times):
            logger.warning("Invalid HTTP request received from %d.", number)

    flood(5000)
    assert len(kept[0].lines) == 20
    logger.warning("Something else.")  # from another line
    assert kept[0].lines[-1] == "Something else."
    now = 60.0
    flood(100)
    assert len(kept[0].lines) == 27 and kept[0].lines[21].endswith("from 0. (and 4980 more from here)")
    assert kept[0].lines == kept[1].lines  # the console and the file say the same


def test_what_a_training_prints_is_not_cut() -> None:
    kept, logger = _Kept(), logging.Logger("task_train")
    kept.addFilter(Calm(lambda: 0.0))
    logger.addHandler(kept)
    for number in range(1000):
        logger.info("step %d", number)
    assert len(kept.lines) == 1000

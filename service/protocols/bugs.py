"""What no room foresaw: logged with its traceback, answered without a word about it."""

from __future__ import annotations

import logging

from service.protocols.answer import Answer
from service.protocols.http_errors import answer_status

BUG = "the server failed on this request; its log says why"

logger = logging.getLogger(__name__)


def answer_bug(err: Exception) -> Answer:
    """Log an exception that no room foresaw, and answer without a word about it."""
    logger.error("a bug in foldserve: this request could not be answered", exc_info=err)
    return answer_status(500, BUG)

"""As whom the server would run: not as root, and not as the first process of a container without knowing it."""

from __future__ import annotations

import os

from service.doctor.finding import Finding, note, ok


def check_user(user: int | None = None) -> list[Finding]:
    """Is it an ordinary user?"""
    user = os.geteuid() if user is None else user
    if user:
        return [ok("user", f"number {user}")]
    meaning = "the server needs no rights: who breaks into it should not have them either"
    return [note("user", "root", meaning, "docker run --user 10001, runAsNonRoot in a pod, User= in systemd")]


def check_process(number: int | None = None) -> list[Finding]:
    """Is it the first process of its container?"""
    number = os.getpid() if number is None else number
    if number != 1:
        return [ok("process", f"number {number}")]
    meaning = "nobody collects the processes that others leave behind; SIGTERM reaches the server all the same"
    return [note("process", "number 1, the first of its container", meaning, "docker run --init, if that matters")]

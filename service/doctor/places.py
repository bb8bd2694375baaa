"""What the settings name and the machine has to give: an address to listen on, files to read."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from service.doctor.finding import Finding, ok, wrong
from service.settings import Settings

# `models` has checks of its own, and the cache is made when it is needed.
OTHERWISE = {"models", "engine_cache"}
STEPS = {
    errno.EADDRINUSE: "stop what listens there (ss -ltnp shows it), or name another --port",
    errno.EACCES: "ports below 1024 are for root: name a higher one",
    errno.EADDRNOTAVAIL: "this machine has no such address: 0.0.0.0 is all that it has",
}


def check_ports(settings: Settings) -> list[Finding]:
    """Can the ports be listened on? Only if they, or the address, were named."""
    given = settings.model_fields_set
    others = [name for name in given if name.endswith("_port")]
    named = (["port"] if {"host", "port"} & given else []) + sorted(others)
    ports = {name: getattr(settings, name) for name in named}
    return [_check_port(name, settings.host, port) for name, port in ports.items() if port is not None]


def check_files(settings: Settings) -> list[Finding]:
    """Can every file be read that was named?"""
    given = sorted(settings.model_fields_set - OTHERWISE)
    named = {name: value for name in given if isinstance(value := getattr(settings, name), Path)}
    return [_check_file(f"--{name.replace('_', '-')}", path) for name, path in named.items()]


def _check_port(name: str, host: str, port: int) -> Finding:
    words = f"{host}, port {port}"
    try:
        _listen(host, port)
    except OSError as err:
        step = STEPS.get(err.errno or 0, "name another address or port")
        return wrong(name, f"{words}: {err.strerror or err}", "the server can not listen there", step)
    return ok(name, f"{words} is free")


def _check_file(name: str, path: Path) -> Finding:
    try:
        _read_a_little(path)
    except OSError as err:
        return wrong(name, f"{path}: {err.strerror}", "the server does not start", "name one that can be read")
    return ok(name, f"{path} can be read")


def _read_a_little(path: Path) -> None:
    if path.is_dir():
        next(path.iterdir(), None)
        return
    if not path.is_file():
        path.stat()  # what is not there is said as such; a pipe or a device may take for ever to read
        return
    with path.open("rb") as file:
        file.read(1)


def _listen(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()

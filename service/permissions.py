"""Who may do what: the one place that says yes or no to a request, before anything of it is read.

Without keys anybody may predict and read, and only this machine may manage: from elsewhere, or through a proxy or a
web page that somebody here looks at, nobody may. With keys, the groups that are protected want a key that is for
them, and managing always does.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import FoldserveError, KeyMissing, NotPermitted
from service.keys.key import HOW_TO_SEND, Key, Keys, read_sent_key
from service.protocols.contract import Headers
from service.route_groups import Group

USUALLY_PROTECTED = frozenset({Group.PREDICT, Group.MANAGE})
THIS_MACHINE = "localhost"
DEFAULT_PORTS = {"http": 80, "https": 443}
MAKE_A_KEY = "make a key by `python -m service.keys new NAME --groups {group} --file keys.txt`"
START_WITH_IT = "start the server with `--keys keys.txt`, and send the key as " + HOW_TO_SEND


class Caller(NamedTuple):
    """What a request says of where it comes from: its `Host` and `Origin` headers, and if a proxy has passed it on."""

    host: bytes = b""
    origin: bytes = b""
    is_forwarded: bool = False  # it has X-Forwarded-For, Forwarded or Via


NOBODY = Caller()


@dataclass(frozen=True, kw_only=True)
class Permissions:
    """The rules of one server. `keys` are None where there is no key file; `is_public`: other machines reach it."""

    keys: Keys | None = None
    protected: frozenset[Group] = USUALLY_PROTECTED
    is_public: bool = True

    def is_open(self, group: Group) -> bool:
        """Say if everybody may, whatever is sent: then nothing of a request need be looked at."""
        if group is Group.HEALTH:
            return True
        return group is not Group.MANAGE and (self.keys is None or group not in self.protected)

    def permit(self, group: Group, headers: Headers, caller: Caller = NOBODY) -> FoldserveError | None:
        """Give the reason why a request may not be answered; None if it may."""
        if self.is_open(group):
            return None
        if self.keys is None:
            return _refuse_stranger(self.is_public, caller)
        try:
            sent = read_sent_key(headers)
        except KeyMissing as err:
            return err
        key = self.keys.find(sent) if sent else None
        return _ask_for_key(group, was_sent=bool(sent)) if key is None else _check_group(key, group)


def is_public_bind(host: str) -> bool:
    """Say if other machines can reach a server that listens on this host; a name that is not known here counts so.

    What the socket itself names (`getsockname`) is surer than what was asked for. A Unix socket is a file, and who
    may open it is said by its mode.
    """
    return not (host.startswith(("/", "unix:")) or host == THIS_MACHINE or _is_loopback(host))


def _ask_for_key(group: Group, *, was_sent: bool) -> KeyMissing:
    got = "one that is not known here" if was_sent else "none"
    return KeyMissing(
        f"expected an API key for {group}, sent as {HOW_TO_SEND}; got {got}; who runs this server can {_how(group)}",
        field="authorization",
        expected=HOW_TO_SEND,
        got=got,
    )


def _check_group(key: Key, group: Group) -> NotPermitted | None:
    if group in key.groups:
        return None
    opens = ", ".join(sorted(key.groups))
    return NotPermitted(
        f"the key {key.name!r} is for {opens}; this wants one for {group}: {_how(group)}",
        field="authorization",
        expected=f"a key for {group}",
        got=f"a key for {opens}",
    )


def _how(group: Group) -> str:
    return MAKE_A_KEY.format(group=group)


def _refuse_stranger(is_public: bool, caller: Caller) -> NotPermitted | None:
    """Let only this machine manage: no other one, no proxy, no web page.

    A page of any site can send requests to this machine, which the browser marks with the page's origin; by a name
    whose address its owner changes to ours (DNS rebinding) it even looks as if it came from here.
    """
    if is_public:
        why = "the server has no keys and can be reached from other machines"
    elif caller.is_forwarded:
        why = "the server has no keys, and a proxy has passed this request on"
    elif not _is_here(caller.host):
        why = "the server has no keys, and the Host header is neither localhost nor an IP address"
    elif caller.origin and not _is_same_place(caller.origin, caller.host):
        why = "the server has no keys, and a web page of another origin sent this request"
    else:
        return None
    return NotPermitted(
        f"only who manages the server may do this: {why}; {_how(Group.MANAGE)}, then {START_WITH_IT}",
        expected="a key for manage, or a request from this machine itself",
    )


def _is_here(host: bytes) -> bool:
    """Say if a Host header has an address, or the one name, that no DNS can make mean something else."""
    name = _split(f"//{host.decode('latin-1')}")[1]
    return name == THIS_MACHINE or _is_address(name)


def _is_same_place(origin: bytes, host: bytes) -> bool:
    place = _split(origin.decode("latin-1"))
    return place[0] in DEFAULT_PORTS and place == _split(f"{place[0]}://{host.decode('latin-1')}")


def _split(url: str) -> tuple[str, str, int]:
    """Give scheme, host and port, in lower case; empty where it is no URL of a host alone."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        return ("", "", 0)
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not url.endswith(parts.netloc):
        return ("", "", 0)
    return (parts.scheme, parts.hostname or "", port or DEFAULT_PORTS.get(parts.scheme, 0))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback

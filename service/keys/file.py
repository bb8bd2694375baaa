"""The key file, read and written: one key a line, as its name, its groups and its SHA-256.

    # name groups sha256
    shop predict 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    ops-2026 predict,read,manage 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

No key stands in it, so reading it is no harm. A line can be made without us: `printf %s "$KEY" | sha256sum`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import SettingsInvalid
from service.keys.key import PREFIX, Key, Keys
from service.route_groups import Group
from service.wording import quote

HEADING = "# API keys of foldserve, one a line: name groups sha256\n"
GROUPS = (Group.PREDICT, Group.READ, Group.MANAGE)
LINE = "<name> <groups> <sha256>, such as: shop predict 9f86…"
MAKE_ONE = "`python -m service.keys new NAME` writes such a line"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
DIGEST_PATTERN = re.compile(r"[0-9a-fA-F]{64}")
MAX_BYTES = 1 << 20
Stamp = tuple[int, ...]


class KeyFile:
    """The keys of a file as it is now: whoever serves asks now and then if it has changed.

    Raises:
        SettingsInvalid: at the start, if the file can not be used; the message names line and fix.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: Stamp | None
        self.keys, self._stamp, self.warning = _read(path)

    def refresh(self) -> str:
        """Read the file again if it is another one, and give what there is to say about that; mostly nothing.

        A file that can not be used changes nothing: the keys that were read last stay good.
        """
        stamp = _look(self.path)
        if stamp == self._stamp:
            return ""
        self._stamp = stamp
        try:
            self.keys, self._stamp, self.warning = _read(self.path)
        except SettingsInvalid as err:
            return f"{err}; the keys that were read before stay good ({len(self.keys.keys)})"
        return self.warning


def parse_keys(text: str, place: str) -> Keys:
    """Read what stands in a key file; `place` is its name, for messages.

    Raises:
        SettingsInvalid: one line is wrong, so none counts; the message says which, and what should stand there.
    """
    keys: list[Key] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = _split(line)
        if words:
            keys.append(_parse_line(words, f"{place}, line {number}"))
            _check_new(keys, f"{place}, line {number}")
    return Keys(tuple(keys))


def parse_groups(text: str, place: str) -> frozenset[Group]:
    """Read a list of groups such as `predict,read`.

    Raises:
        SettingsInvalid: a word is no group that a key can be for.
    """
    names = text.split(",")
    wrong = [name for name in names if name not in GROUPS]
    if wrong:
        raise SettingsInvalid(
            f"{place}: expected groups from {','.join(GROUPS)}, without spaces; got {quote(wrong[0])}"
        )
    return frozenset(map(Group, names))


def write_line(key: Key) -> str:
    """Write the line of one key."""
    groups = ",".join(group for group in GROUPS if group in key.groups)
    return f"{key.name} {groups} {key.digest.hex()}\n"


def add_key(path: Path, key: Key) -> None:
    """Add a key to a file; make the file if there is none, for its owner only.

    Raises:
        SettingsInvalid: the name is no name or taken, the file is wrong, or it can not be written.
    """

    def add(text: str) -> str:
        line = write_line(key)
        _check_new([*parse_keys(text, str(path)).keys, _parse_line(line.split(), str(path))], str(path))
        end = "" if text.endswith("\n") or not text else "\n"
        return (text or HEADING) + end + line

    _rewrite(path, add)


def remove_key(path: Path, name: str) -> None:
    """Take the key of that name out of a file; all else stays as it was written.

    Raises:
        SettingsInvalid: there is no such key, the file is wrong, or it can not be written.
    """

    def remove(text: str) -> str:
        names = [key.name for key in parse_keys(text, str(path)).keys]
        if name not in names:
            known = ", ".join(names) or "none"
            raise SettingsInvalid(f"{path}: there is no key {quote(name)} to revoke; there are: {known[:80]}")
        return "\n".join(line for line in text.split("\n") if _split(line)[:1] != [name])

    _rewrite(path, remove)


def _split(line: str) -> list[str]:
    return line.partition("#")[0].split()


def _parse_line(words: Sequence[str], place: str) -> Key:
    if any(word.startswith(PREFIX) for word in words):
        raise SettingsInvalid(
            f"{place}: here stands a key itself, and everybody who can read the file can use it: revoke it, and make "
            f"a new one; {MAKE_ONE}, with a hash"
        )
    if len(words) != 3:
        raise SettingsInvalid(f"{place}: expected {LINE}; got {len(words)} words; {MAKE_ONE}")
    name, groups, digest = words
    if not NAME_PATTERN.fullmatch(name):
        raise SettingsInvalid(f"{place}: expected a name of 1 to 64 letters, digits and '_.@-'; got {quote(name)}")
    if not DIGEST_PATTERN.fullmatch(digest):
        raise SettingsInvalid(
            f"{place}: expected the key's SHA-256 as 64 hexadecimal digits; got {len(digest)} characters; {MAKE_ONE}"
        )
    return Key(name, parse_groups(groups, place), bytes.fromhex(digest))


def _check_new(keys: Sequence[Key], place: str) -> None:
    *others, last = keys
    for other in others:
        if other.name == last.name:
            raise SettingsInvalid(
                f"{place}: the name {last.name!r} is taken already: give each key its own, such as {last.name[:56]}-2"
            )
        if other.digest == last.digest:
            raise SettingsInvalid(
                f"{place}: {last.name!r} is the same key as {other.name!r}: remove one, or make a new key for it"
            )


def _look(path: Path) -> Stamp | None:
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    """Tell a file from the one that stood there before; the time of its last `chmod` is part of it."""
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)


def _read(path: Path) -> tuple[Keys, Stamp, str]:
    """Give the keys, the stamp of the very file that was read, and what is to be warned of."""
    try:
        content, status = _read_plain_file(path)
    except OSError as err:
        raise SettingsInvalid(f"{path}: can not be read as a key file: {err.strerror}; {MAKE_ONE}") from err
    return parse_keys(_decode(content, path), str(path)), _stamp(status), _warn(status, path)


def _read_plain_file(path: Path) -> tuple[bytes, os.stat_result]:
    """Read at most a little more than is allowed, and nothing of a pipe or a device, which may take for ever."""
    with open(path, "rb", opener=_open_at_once) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise SettingsInvalid(f"{path}: expected a key file; this is a pipe or a device; {MAKE_ONE}")
        return file.read(MAX_BYTES + 1), status


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting for who might write into it, as a pipe would."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _decode(content: bytes, path: Path) -> str:
    if len(content) > MAX_BYTES:
        raise SettingsInvalid(f"{path}: expected a key file of at most {MAX_BYTES >> 20} MiB: is it another file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise SettingsInvalid(f"{path}: expected text in UTF-8; byte {err.start} is none: is it another file?") from err


def _warn(status: os.stat_result, path: Path) -> str:
    if not status.st_mode & stat.S_IWOTH:
        return ""
    return f"{path}: every user of this machine may write to the key file, and so make keys: chmod o-w {path}"


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    """Put a changed file in the old one's place, whole or not at all.

    The draft beside it also keeps two commands from writing at once.
    """
    path = path.resolve()
    draft = path.with_name(f"{path.name}.draft")
    try:
        with _drafting(draft) as descriptor:
            text = _decode(_read_plain_file(path)[0], path) if path.exists() else ""
            _fill(descriptor, change(text), path)
        draft.replace(path)
    except FileExistsError as err:
        raise SettingsInvalid(f"{draft} is there: another command writes keys; if none does, delete it") from err
    except OSError as err:
        raise SettingsInvalid(f"{path}: the key file can not be written: {err.strerror}") from err


@contextmanager
def _drafting(draft: Path) -> Iterator[int]:
    """Open a file that nobody has and nobody else may read; if it can not be filled, remove it."""
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    except BaseException:
        draft.unlink()
        raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, text: str, path: Path) -> None:
    """Write the whole text to the disk; who might read the old file may read the new one."""
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text.encode())
        file.flush()
        if path.exists():
            _take_over(descriptor, path.stat())
        os.fsync(descriptor)


def _take_over(descriptor: int, status: os.stat_result) -> None:
    with suppress(PermissionError):  # only root can give a file away
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))

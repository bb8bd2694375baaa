"""The gate in front of all routes: it looks at who asks before anything of the request is read, and at nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from service.errors import FoldserveError, NotPermitted, PathUnknown, SettingsInvalid
from service.keys.file import KeyFile, parse_groups
from service.permissions import Caller, Permissions, is_public_bind
from service.protocols.contract import Headers
from service.route_groups import Group, group_of, is_managing
from service.settings import Settings
from service.vertex_environment import VertexEnvironment

FORWARDED = frozenset(
    {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip", b"forwarded", b"via"}
)


class Gate:
    """Lets requests pass, or says why not.

    Raises:
        SettingsInvalid: at the start, if the key file can not be used.
    """

    def __init__(self, settings: Settings, vertex: VertexEnvironment) -> None:
        if settings.keys is None and settings.protect != Settings.model_fields["protect"].default:
            raise SettingsInvalid("--protect says which routes want a key, and there are none: name a file by --keys")
        self._vertex = vertex
        self._file = KeyFile(settings.keys) if settings.keys is not None else None
        self._permissions = Permissions(
            keys=self._file.keys if self._file else None,
            protected=parse_groups(settings.protect, "--protect") | {Group.MANAGE},
            is_public=is_public_bind(settings.host),
        )
        self.warning = self._file.warning if self._file else ""
        self.wants_keys = self._file is not None
        self.predicting_is_open = self._permissions.is_open(Group.PREDICT)

    def refresh(self) -> str:
        """Read the keys again if their file has changed; give what there is to say about that."""
        if self._file is None:
            return ""
        said = self._file.refresh()
        self._permissions = replace(self._permissions, keys=self._file.keys)
        return said

    def refuse_predicting(self, headers: Headers) -> FoldserveError | None:
        """Give why a prediction may not be answered; None if it may."""
        return None if self.predicting_is_open else self._permissions.permit(Group.PREDICT, headers)

    def refuse(
        self, method: str, path: str, headers: Headers, all_headers: Iterable[tuple[bytes, bytes]]
    ) -> FoldserveError | None:
        """Give why a request may not be answered; None if it may."""
        group = group_of(method, path, self._vertex)
        if self._permissions.is_open(group):
            return None
        refusal = self._permissions.permit(group, headers, _read_caller(all_headers))
        is_nothing = group is Group.MANAGE and not is_managing(path)
        return _nothing_there(method, path) if is_nothing and isinstance(refusal, NotPermitted) else refusal


def _nothing_there(method: str, path: str) -> PathUnknown:
    """Say so to who has mistyped a path, and nothing of managing."""
    return PathUnknown(f"{method} {path[:200]}: there is nothing that takes it; GET / lists what there is")


def _read_caller(headers: Iterable[tuple[bytes, bytes]]) -> Caller:
    found = dict(headers)
    return Caller(found.get(b"host", b""), found.get(b"origin", b""), not FORWARDED.isdisjoint(found))

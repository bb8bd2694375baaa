"""Who may ask: every route has its group, what is unknown is closed, and without keys only this machine manages."""

from __future__ import annotations

import asyncio
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.routing import Match

from service.app import create_app
from service.errors import FoldserveError, KeyMissing, NotPermitted
from service.keys.key import Key, Keys, hash_key
from service.permissions import Caller, Permissions, is_public_bind
from service.protocols.contract import Headers
from service.protocols.http_errors import answer_error
from service.route_groups import Group, group_of
from service.settings import Settings
from service.vertex_environment import VertexEnvironment
from tests.service.tiny_models import tiny_model, write_tiny_bundle

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "post", "BREW")
HEALTH = re.compile(r"/health/(live|ready)|/v2/models/[^/]+(/versions/[^/]+)?/ready")
PROBE = re.compile(r"/ping|(/v2)?/health(/[a-z]+)?|/v2/models/[^/]+(/(versions|labels)/[^/]+)?/ready")
# What a request may be taken for that is answered by a route of the group: never for what more people may do.
AT_LEAST = {
    Group.HEALTH: {Group.HEALTH, Group.READ, Group.MANAGE},
    Group.READ: {Group.READ, Group.MANAGE},
    Group.PREDICT: {Group.PREDICT, Group.MANAGE},
    Group.MANAGE: {Group.MANAGE},
}
LOCAL = Caller(host=b"127.0.0.1:8000")
HERE = Permissions(is_public=False)
PUBLIC = Permissions(is_public=True)
ALL = frozenset({Group.PREDICT, Group.READ, Group.MANAGE})


def headers_of(key: str) -> Headers:
    return Headers(authorization=f"Bearer {key}".encode())


def with_keys(**kept: frozenset[Group]) -> Keys:
    return Keys(tuple(Key(name, groups, hash_key(name.encode())) for name, groups in kept.items()))


# --- the group of a request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "group"),
    [
        ("POST /predict", "predict"),
        ("POST /models/digits/predict", "predict"),
        ("POST /models/digits/versions/3/predict", "predict"),
        ("POST /models/digits/labels/stable/predict", "predict"),
        ("POST /v2/models/digits/infer", "predict"),
        ("POST /v2/models/digits/versions/3/infer", "predict"),
        ("POST /v1/models/digits:predict", "predict"),
        ("POST /v1/models/digits/labels/stable:predict", "predict"),
        ("POST /invocations", "predict"),
        ("GET /", "read"),
        ("HEAD /", "read"),
        ("GET /predict", "read"),
        ("GET /metrics", "read"),
        ("GET /docs", "read"),
        ("GET /openapi.json", "read"),
        ("GET /tail-report", "read"),
        ("GET /models", "read"),
        ("GET /v1/models/digits", "read"),
        ("GET /v2/models/digits", "read"),
        ("POST /v2/repository/index", "read"),
        ("POST /v2/repository/models/digits/load", "manage"),
        ("POST /v2/repository/models/digits/unload", "manage"),
        ("POST /models", "manage"),
        ("DELETE /models/digits", "manage"),
        ("PUT /models/digits/default", "manage"),
        ("DELETE /tail-report", "manage"),
        ("POST /unheard-of", "manage"),
        ("OPTIONS /predict", "manage"),
        ("GET /ping", "health"),
        ("GET /health", "health"),
        ("GET /health/live", "health"),
        ("HEAD /health/ready", "health"),
        ("GET /v2/health/live", "health"),
        ("GET /v2/models/digits/ready", "health"),
        ("GET /v2/models/digits/versions/3/ready", "health"),
        ("POST /health/live", "manage"),
    ],
)
def test_a_request_is_in_its_group(request_line: str, group: str) -> None:
    method, _, path = request_line.partition(" ")
    assert group_of(method, path).value == group


def test_vertex_ai_names_two_paths_more_and_unset_ones_open_nothing() -> None:
    vertex = VertexEnvironment(mode="PREDICTION", health_route="/v1/endpoints/7", predict_route="/v1/endpoints/7:go")
    assert group_of("GET", "/v1/endpoints/7", vertex) is Group.HEALTH
    assert group_of("POST", "/v1/endpoints/7:go", vertex) is Group.PREDICT
    assert group_of("POST", "/v1/endpoints/7", vertex) is Group.MANAGE
    assert group_of("POST", "") is group_of("GET", "") is Group.MANAGE


@dataclass(frozen=True)
class Router:
    """What really routes: the lanes of the hot path, and behind them FastAPI."""

    lanes: frozenset[str]
    routes: tuple[Any, ...]

    def group(self, method: str, path: str) -> Group | None:
        """Give the group of what would answer, decided by its template; None if nothing would."""
        if method == "POST" and path in self.lanes:
            return Group.PREDICT
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        matching = (route for route in self.routes if route.matches(scope)[0] is Match.FULL)
        route = next(matching, None)
        return None if route is None else decide(method, route.path)


def decide(method: str, template: str) -> Group:
    """Give the group of a route, as somebody decided it who sees its template, and not the path of a request."""
    if method in {"GET", "HEAD"}:
        return Group.HEALTH if HEALTH.fullmatch(template) else Group.READ
    if method == "POST" and template.endswith(("/predict", "/infer", ":predict", "/invocations")):
        return Group.PREDICT
    return Group.READ if (method, template) == ("POST", "/v2/repository/index") else Group.MANAGE


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Router:
    """The routes of a real server with one model."""
    root: Path = tmp_path_factory.mktemp("models")
    write_tiny_bundle(root, tiny_model())
    app = create_app(Settings(models=root, device="cpu"))

    async def look() -> Router:
        async with app.running():
            fastapi: Any = await app.load_fastapi()
            return Router(frozenset(app.directory.table.lanes), tuple(fastapi.routes))

    return asyncio.run(look())


def test_every_declared_route_is_in_the_group_that_its_template_says(router: Router) -> None:
    many = [(getattr(route, "methods", None) or {"GET"}, route.path) for route in router.routes]
    declared = [(method, template) for methods, template in many for method in methods]
    assert len(declared) > 40
    wrong = [
        (method, template)
        for method, template in declared
        if group_of(method, re.sub(r"\{\w+\}", "digits", template)) is not decide(method, template)
    ]
    assert wrong == []
    assert {group_of("POST", lane) for lane in router.lanes} == {Group.PREDICT}


WORDS = """predict infer invocations invoke models model digits versions labels 1 stable v1 v2 health live ready ping
    docs metrics repository index load unload default tail-report digits:predict 1:predict example stats config . ..
    %2e%2e %2F %2f.. %00 %0a PREDICT Models Health ready%20 infer; infer?"""
PATHS = st.lists(st.sampled_from(["", *WORDS.split()]), max_size=8).map(lambda segments: "/" + "/".join(segments))
REAL = """/predict /models/digits/predict /v2/models/digits/infer /v1/models/digits:predict /invocations /health/live
    /ping /v2/health/ready /v2/models/digits/ready /v2/repository/index /v2/repository/models/digits/load /tail-report
    /models/digits/default /docs"""
PARTS = st.sampled_from(["/", "//", "/./", "/../", "%2f", "%2e", "%25", "%0a", "\n", ";", ":", "\\", "\x00", "ı"])


@st.composite
def twisted(draw: st.DrawFn) -> str:
    """A real path, with one or two of the things done to it by which routers and guards have come to differ."""
    path = draw(st.sampled_from(REAL.split()))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(path)))
        before, letter, after = path[:place], path[place : place + 1], path[place + 1 :]
        match draw(st.sampled_from(["insert", "encode", "upper"])):
            case "insert":
                path = before + draw(PARTS) + letter + after
            case "encode":
                path = before + "".join(f"%{byte:02x}" for byte in letter.encode()) + after
            case _:
                path = before + (letter + after).upper()
    return path


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(["POST", "GET"]) | st.sampled_from(METHODS), PATHS | twisted())
@example("GET", "/health/live\n")
@example("POST", "/models/digits/predict\n")
@example("POST", "/predict/")
@example("POST", "/models/digits/predict/load")
@example("POST", "/Models/digits/predict")
@example("POST", "/v3/models/digits/predict")
@example("GET", "/health/live/../../tail-report")
@example("POST", "/v2/models/x%2f..%2f..%2frepository%2fmodels%2fdigits%2fload/infer")
@example("POST", "/v2/repository/models/digits/load/../../../../models/digits/infer")
def test_no_way_to_write_a_path_is_in_a_laxer_group_than_what_answers(router: Router, method: str, raw: str) -> None:
    path = urllib.parse.unquote(raw)  # once, as uvicorn does
    got, wanted = group_of(method, path), router.group(method, path)
    if wanted is not None:
        assert got in AT_LEAST[wanted]
    elif method in {"GET", "HEAD"}:
        assert got is Group.READ or PROBE.fullmatch(path)
    else:
        assert got is Group.MANAGE


# --- with keys -------------------------------------------------------------------------------------------------------


def test_a_key_opens_its_groups_and_no_other() -> None:
    permissions = Permissions(
        keys=with_keys(shop=frozenset({Group.PREDICT}), ops=frozenset({Group.MANAGE})), protected=ALL
    )
    refusals = {
        (name, group.value): type(permissions.permit(group, headers_of(name))).__name__
        for name in ("shop", "ops", "stranger")
        for group in Group
    }
    assert refusals == {
        ("shop", "predict"): "NoneType",
        ("shop", "read"): "NotPermitted",
        ("shop", "manage"): "NotPermitted",
        ("shop", "health"): "NoneType",
        ("ops", "predict"): "NotPermitted",
        ("ops", "read"): "NotPermitted",
        ("ops", "manage"): "NoneType",
        ("ops", "health"): "NoneType",
        ("stranger", "predict"): "KeyMissing",
        ("stranger", "read"): "KeyMissing",
        ("stranger", "manage"): "KeyMissing",
        ("stranger", "health"): "NoneType",
    }


def test_with_keys_reading_is_open_if_it_is_not_protected_and_managing_never_is() -> None:
    permissions = Permissions(keys=with_keys(), protected=frozenset(), is_public=False)
    assert [group for group in Group if permissions.permit(group, Headers(), LOCAL) is not None] == [Group.MANAGE]
    usual = Permissions(keys=with_keys())
    assert [group for group in Group if usual.permit(group, Headers()) is None] == [Group.READ, Group.HEALTH]


@given(st.sampled_from(Group), st.booleans(), st.none() | st.just(Keys()), st.frozensets(st.sampled_from(Group)))
def test_what_is_open_refuses_nobody_and_what_is_not_refuses_somebody(
    group: Group, is_public: bool, keys: Keys | None, protected: frozenset[Group]
) -> None:
    permissions = Permissions(keys=keys, protected=protected, is_public=is_public)
    assert permissions.is_open(group) == (permissions.permit(group, Headers()) is None)


def refusal(error: FoldserveError | None) -> str:
    assert error is not None
    return str(error)


def test_a_refusal_says_how_to_get_a_key_and_quotes_none() -> None:
    permissions = Permissions(keys=with_keys(shop=frozenset({Group.PREDICT})))
    unknown = permissions.permit(Group.PREDICT, headers_of("fsk_very-secret"))
    assert isinstance(unknown, KeyMissing)
    answer = answer_error(unknown)
    assert (answer.status, dict(answer.headers)[b"www-authenticate"]) == (401, b"Bearer")
    assert b"very-secret" not in answer.body
    assert b"got one that is not known here" in answer.body
    assert "got none" in refusal(permissions.permit(Group.PREDICT, Headers()))
    known = permissions.permit(Group.MANAGE, headers_of("shop"))
    assert isinstance(known, NotPermitted)
    assert answer_error(known).status == 403
    assert "the key 'shop' is for predict" in str(known)
    assert "`python -m service.keys new NAME --groups manage --file keys.txt`" in str(known)


def test_two_keys_that_differ_are_refused_and_not_raised() -> None:
    both = Headers(authorization=b"Bearer shop", api_key=b"ops")
    permissions = Permissions(keys=with_keys(shop=ALL, ops=ALL))
    assert isinstance(permissions.permit(Group.PREDICT, both), KeyMissing)


# --- without keys ----------------------------------------------------------------------------------------------------


def test_without_keys_who_is_on_this_machine_may_do_everything() -> None:
    assert [group for group in Group if HERE.permit(group, Headers(), LOCAL) is not None] == []


def test_without_keys_a_public_server_lets_nobody_manage_and_says_how_to() -> None:
    assert [group for group in Group if PUBLIC.permit(group, Headers(), LOCAL) is not None] == [Group.MANAGE]
    said = refusal(PUBLIC.permit(Group.MANAGE, Headers(), LOCAL))
    assert "can be reached from other machines; make a key by `python -m service.keys new NAME --groups manage" in said


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_without_keys_this_machine_goes_by_its_name_or_address(host: str) -> None:
    assert HERE.permit(Group.MANAGE, Headers(), Caller(host=host.encode())) is None


STRANGERS = """evil.example evil.example:8000 localhost.evil.example 127.0.0.1.evil.example localhost@evil.example
    evil.example/localhost localhost#evil.example 2130706433 [::1 localhost:x"""


@pytest.mark.parametrize("host", ["", "local\thost", "\xff", *STRANGERS.split()])
def test_a_name_whose_address_somebody_else_decides_is_not_this_machine(host: str) -> None:
    """DNS rebinding: a page of evil.example makes the browser ask 127.0.0.1, by the name evil.example."""
    said = refusal(HERE.permit(Group.MANAGE, Headers(), Caller(host=host.encode("latin-1"))))
    assert "neither localhost nor an IP address" in said


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://localhost", "localhost:80"),
        ("https://LOCALHOST:443", "localhost"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_our_own_page_may_manage(origin: str, host: str) -> None:
    assert HERE.permit(Group.MANAGE, Headers(), Caller(host=host.encode(), origin=origin.encode())) is None


OTHER_ORIGINS = """null https://evil.example http://127.0.0.1:8001 http://localhost:8000 http://127.0.0.1 127.0.0.1:8000
    http://127.0.0.1:8000.evil.example http://evil.example/127.0.0.1:8000 http://127.0.0.1:8000@evil.example
    chrome-extension://127.0.0.1:8000 http://[ //127.0.0.1:8000"""


@pytest.mark.parametrize("origin", OTHER_ORIGINS.split())
def test_a_page_of_another_origin_may_not_manage(origin: str) -> None:
    caller = LOCAL._replace(origin=origin.encode())
    assert "a web page of another origin" in refusal(HERE.permit(Group.MANAGE, Headers(), caller))


def test_what_a_proxy_passes_on_does_not_come_from_this_machine() -> None:
    assert "a proxy" in refusal(HERE.permit(Group.MANAGE, Headers(), LOCAL._replace(is_forwarded=True)))


def test_who_forgets_to_say_where_a_request_comes_from_lets_nobody_manage() -> None:
    assert isinstance(Permissions(is_public=False).permit(Group.MANAGE, Headers()), NotPermitted)
    assert isinstance(Permissions().permit(Group.MANAGE, Headers(), LOCAL), NotPermitted)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "/run/f.sock", "unix:f"]
)
def test_these_hosts_are_reached_from_this_machine_only(host: str) -> None:
    assert not is_public_bind(host)


ELSEWHERE = "0.0.0.0 :: 10.0.0.1 fe80::1 ::ffff:10.0.0.1 box localhost.lan"


@pytest.mark.parametrize("host", ["", *ELSEWHERE.split()])
def test_other_hosts_and_names_that_are_not_known_count_as_public(host: str) -> None:
    assert is_public_bind(host)

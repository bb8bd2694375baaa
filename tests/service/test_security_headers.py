"""What browsers are told about an answer depends on what it is; a page may run its own scripts and no others."""

from __future__ import annotations

import base64
import hashlib

import pytest

from service.security_headers import EVERY_ANSWER, security_headers

PAGE = b"<html><script src='/a.js'></script><script>\nlet a = 1\n</script><p>text</p><script>b()</script></html>"


def policy_of(page: bytes) -> dict[str, list[str]]:
    policy = dict(security_headers(b"text/html; charset=utf-8", page))[b"content-security-policy"].decode()
    return {name: sources for name, *sources in (directive.split() for directive in policy.split(";"))}


def test_a_page_may_run_exactly_the_scripts_that_stand_in_it_and_those_from_here() -> None:
    hashes = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (b"\nlet a = 1\n", b"b()")]
    assert policy_of(PAGE)["script-src"] == ["'self'", *(f"'sha256-{text}'" for text in hashes)]


def test_nothing_else_is_allowed_to_a_page_than_what_is_listed() -> None:
    policy = policy_of(PAGE)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert not any("unsafe" in source or "*" in source for sources in policy.values() for source in sources)


@pytest.mark.parametrize(
    ("content_type", "kept"),
    [(b"application/json", False), (b"text/plain; version=0.0.4", False), (b"text/html", False), (b"text/css", True)],
)
def test_documents_are_not_kept_by_caches_and_what_a_page_is_made_of_is(content_type: bytes, kept: bool) -> None:
    headers = security_headers(content_type)
    assert ((b"cache-control", b"no-store") not in headers) is kept
    assert set(EVERY_ANSWER) <= set(headers)
    assert len(dict(headers)) == len(headers)

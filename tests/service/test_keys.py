"""API keys: only their hashes are kept, several are good at once, and the file may change while the server runs."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import KeyMissing, SettingsInvalid
from service.keys.__main__ import main
from service.keys.file import KeyFile, add_key, parse_groups, parse_keys, remove_key, write_line
from service.keys.key import Key, Keys, create_key, hash_key, read_sent_key
from service.protocols.contract import Headers
from service.route_groups import Group

PREDICT = frozenset({Group.PREDICT})
DIGEST = hashlib.sha256(b"one").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}", fullmatch=True)
GROUPS = st.frozensets(st.sampled_from([Group.PREDICT, Group.READ, Group.MANAGE]), min_size=1)
MANY = st.lists(st.builds(Key, NAMES, GROUPS, st.binary(min_size=32, max_size=32)), unique_by=lambda key: key.name)


def stored(name: str, key: str) -> Key:
    return Key(name, PREDICT, hash_key(key.encode()))


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_found_among_all_that_are_good_and_another_is_not() -> None:
    made = [create_key() for _ in range(4)]
    keys = Keys(tuple(stored(f"client-{number}", key) for number, key in enumerate(made[:3])))
    found = [keys.find(key.encode()) for key in made]
    assert [key.name if key else None for key in found] == ["client-0", "client-1", "client-2", None]


def test_every_stored_hash_is_compared_also_behind_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    compare = hmac.compare_digest

    def watch(sent: bytes, kept: bytes) -> bool:
        compared.append(kept)
        return compare(sent, kept)

    monkeypatch.setattr(hmac, "compare_digest", watch)
    keys = Keys(tuple(stored(name, name) for name in "abc"))
    assert keys.find(b"a") is keys.keys[0]
    assert compared == [key.digest for key in keys.keys]


def test_a_key_is_256_bits_that_a_scanner_knows_and_a_header_may_hold() -> None:
    made = {create_key() for _ in range(100)}
    assert len(made) == 100
    # 32 bytes are 43 letters of base64 without its padding.
    assert {(key[:4], len(key), key.isascii(), " " in key) for key in made} == {("fsk_", 47, True, False)}


def test_a_key_shown_by_accident_shows_no_hash() -> None:
    key = stored("shop", "secret")
    assert repr(key.digest) not in repr(key)


@pytest.mark.parametrize(
    ("headers", "sent"),
    [
        (Headers(authorization=b"Bearer one"), b"one"),
        (Headers(authorization=b"bearer  one "), b"one"),
        (Headers(api_key=b"one"), b"one"),
        (Headers(authorization=b"Bearer one", api_key=b"one"), b"one"),
        (Headers(authorization=b"Basic dXNlcg==", api_key=b"one"), b"one"),
        (Headers(authorization=b"Basic dXNlcg=="), b""),
        (Headers(authorization=b"one"), b""),
        (Headers(), b""),
    ],
)
def test_a_key_is_sent_as_a_bearer_or_in_a_header_of_its_own(headers: Headers, sent: bytes) -> None:
    assert read_sent_key(headers) == sent


def test_of_two_keys_that_differ_neither_counts_and_neither_is_quoted() -> None:
    with pytest.raises(KeyMissing, match="two that differ") as caught:
        read_sent_key(Headers(authorization=b"Bearer first-key", api_key=b"second-key"))
    assert "-key" not in str(caught.value).replace("X-API-Key", "")


# --- the file --------------------------------------------------------------------------------------------------------


@given(MANY)
def test_what_is_written_is_read_again(keys: list[Key]) -> None:
    unique = list({key.digest: key for key in keys}.values())
    assert parse_keys("".join(map(write_line, unique)), "f") == Keys(tuple(unique))


def test_comments_blank_lines_tabs_and_windows_line_ends_are_no_matter() -> None:
    text = f"# all keys\r\n\r\nshop\tpredict,read  {DIGEST.upper()}  # since May\r\n"
    assert parse_keys(text, "f") == Keys((Key("shop", frozenset({Group.PREDICT, Group.READ}), hash_key(b"one")),))


def test_a_line_can_be_made_without_us() -> None:
    """By `printf %s "$KEY" | sha256sum`, as the module says."""
    keys = parse_keys(f"shop predict {DIGEST}", "f")
    assert keys.find(b"one") == keys.keys[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("shop predict", "expected <name> <groups> <sha256>.*got 2 words"),
        (f"shop predict, read {OTHER}", "got 4 words"),
        (f"shop predict,raed {OTHER}", "expected groups from predict,read,manage.*got 'raed'"),
        (f"shop health {OTHER}", "got 'health'"),
        (f"shop predict, {OTHER}", "got ''"),
        (f"shop predict {OTHER[1:]}", "64 hexadecimal digits; got 63 characters"),
        (f"shöp predict {OTHER}", "expected a name.*got 'shöp'"),
        (f"first predict {OTHER}", "the name 'first' is taken already"),
        (f"shop predict {DIGEST}", "'shop' is the same key as 'first'"),
        ("shop predict fsk_TheKeyItself", "a key itself.*revoke it"),
    ],
)
def test_a_wrong_line_is_named_with_what_should_stand_there(line: str, says: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"^keys.txt, line 3: .*{says}") as caught:
        parse_keys(f"# heading\nfirst predict {DIGEST}\n{line}\n", "keys.txt")
    assert "TheKeyItself" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"#" * ((1 << 20) + 1)], ids=["no text", "too long"])
def test_another_file_is_not_taken_for_keys(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(SettingsInvalid, match="is it another file"):
        KeyFile(tmp_path / "model.onnx")


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
def test_keys_are_read_from_a_plain_file_only(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "keys.txt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(SettingsInvalid, match=r"keys\.txt: .*(this is a pipe or a device|Is a directory)"):
        KeyFile(path)


def test_a_key_is_not_added_to_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    os.mkfifo(path)
    with pytest.raises(SettingsInvalid, match="this is a pipe"):
        add_key(path, stored("new", "new-key"))
    assert [each.name for each in tmp_path.iterdir()] == ["keys.txt"]


def test_a_server_does_not_start_without_the_file_that_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"nothing\.txt: can not be read as a key file: No such file"):
        KeyFile(tmp_path / "nothing.txt")


# --- the file changes ------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    add_key(tmp_path / "keys.txt", stored("old", "old-key"))
    return tmp_path / "keys.txt"


def test_a_key_is_changed_for_another_without_a_moment_without_any(path: Path) -> None:
    file = KeyFile(path)
    add_key(path, stored("new", "new-key"))
    assert file.refresh() == ""
    assert [bool(file.keys.find(key)) for key in (b"old-key", b"new-key")] == [True, True]
    remove_key(path, "old")
    assert file.refresh() == ""
    assert [bool(file.keys.find(key)) for key in (b"old-key", b"new-key")] == [False, True]


def test_a_file_that_is_the_same_is_not_read_again(path: Path) -> None:
    file = KeyFile(path)
    before = file.keys
    assert file.refresh() == ""
    assert file.keys is before
    path.touch()
    file.refresh()
    assert file.keys is not before
    assert file.keys == before


def test_a_file_that_became_invalid_changes_nothing_and_that_is_said_once(path: Path) -> None:
    file = KeyFile(path)
    text = path.read_text()
    path.write_text("half a")
    assert "line 1: expected <name>" in (said := file.refresh())
    assert said.endswith("the keys that were read before stay good (1)")
    assert file.refresh() == ""
    assert file.keys.find(b"old-key")
    path.write_text(text.replace("old", "renamed"))
    assert file.refresh() == ""
    assert [key.name for key in file.keys.keys] == ["renamed"]


def test_a_file_that_is_away_for_a_moment_locks_nobody_out(path: Path) -> None:
    file = KeyFile(path)
    away = path.rename(path.with_name("away"))
    assert "No such file" in file.refresh()
    assert file.refresh() == ""
    assert file.keys.find(b"old-key")
    away.rename(path)
    assert file.refresh() == ""


def test_when_the_last_key_is_revoked_no_key_is_good(path: Path) -> None:
    file = KeyFile(path)
    remove_key(path, "old")
    assert file.refresh() == ""
    assert file.keys == Keys()


def test_who_lets_everybody_write_keys_is_warned(path: Path) -> None:
    file = KeyFile(path)
    assert file.warning == ""
    path.chmod(0o644)
    assert file.refresh() == ""
    path.chmod(0o646)
    assert "every user of this machine may write" in file.refresh()
    assert "chmod o-w" in KeyFile(path).warning


# --- the file is written ---------------------------------------------------------------------------------------------


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    add_key(path, stored("other", "other-key"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_people_wrote_into_the_file_stays(path: Path) -> None:
    path.write_text(f"# ours\n\nshop predict {DIGEST}  # since May\nops manage {OTHER}")
    add_key(path, stored("third", "third-key"))
    remove_key(path, "ops")
    assert (
        path.read_text() == f"# ours\n\nshop predict {DIGEST}  # since May\n{write_line(stored('third', 'third-key'))}"
    )


def test_behind_a_link_the_file_itself_is_written(path: Path) -> None:
    link = path.with_name("link.txt")
    link.symlink_to(path)
    add_key(link, stored("new", "new-key"))
    assert link.is_symlink()
    assert KeyFile(path).keys.find(b"new-key")


def test_what_can_not_be_added_leaves_the_file_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    for key in (stored("old", "another"), stored("another", "old-key"), stored("no name", "another")):
        with pytest.raises(SettingsInvalid):
            add_key(path, key)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["keys.txt"]


def test_two_commands_do_not_write_over_one_another(path: Path) -> None:
    (path.parent / "keys.txt.draft").touch()
    with pytest.raises(SettingsInvalid, match=r"keys\.txt\.draft is there: another command writes keys"):
        add_key(path, stored("new", "new-key"))
    assert (path.parent / "keys.txt.draft").exists()


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_key_once_and_keeps_what_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    command = [sys.executable, "-W", "error", "-m", "service.keys", "new", "shop", "--groups", "predict,read"]
    done = subprocess.run([*command, "--file", str(path)], capture_output=True, text=True, check=True)
    key = done.stdout.strip()
    assert done.stdout == f"{key}\n"
    found = KeyFile(path).keys.find(key.encode())
    assert found is not None
    assert (found.name, sorted(found.groups)) == ("shop", [Group.PREDICT, Group.READ])
    assert key not in path.read_text() + done.stderr


def test_the_command_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--file", str(tmp_path / "keys.txt")]
    assert [main(["new", name, *file]) for name in ("shop", "ops")] == [0, 0]
    assert main(["revoke", "shop", *file]) == 0
    capsys.readouterr()
    assert main(["list", *file]) == 0
    assert capsys.readouterr().out.split()[:3] == ["ops", "predict", "sha256"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new", "shop", "--groups", "everything"], "--groups: expected groups from predict,read,manage"),
        (["new", "two words"], "NAME: expected 1 to 64 letters"),
        (["revoke", "shop"], "there is no key 'shop' to revoke; there are: none"),
        (["list"], "can not be read as a key file"),
    ],
)
def test_a_wrong_command_says_on_one_line_what_is_wrong(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--file", str(tmp_path / "keys.txt")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert says in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_for_health_which_is_open_to_all() -> None:
    with pytest.raises(SettingsInvalid, match="got 'health'"):
        parse_groups("predict,health", "--groups")

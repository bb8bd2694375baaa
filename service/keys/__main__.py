"""Makes, lists and revokes API keys: `python -m service.keys new shop` prints a key once, and keeps its hash."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from service.errors import SettingsInvalid
from service.keys.file import GROUPS, NAME_PATTERN, KeyFile, add_key, parse_groups, remove_key
from service.keys.key import HOW_TO_SEND, Key, create_key, hash_key

EXIT_USAGE = 2
USUAL_FILE = Path("keys.txt")


def main(arguments: Sequence[str]) -> int:
    """Do what the command says; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except SettingsInvalid as err:
        sys.stderr.write(f"foldserve: {' '.join(str(err).split())}\n")
        return EXIT_USAGE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service.keys", description="API keys of a server: a file of hashes."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = _add(commands, "new", "make a key, print it once, and add its hash to the file")
    new.set_defaults(run=_create)
    new.add_argument("name", metavar="NAME", help="whose key it is, such as shop-2026")
    new.add_argument("--groups", default="predict", help=f"what it is for: some of {','.join(GROUPS)}; usually predict")
    _add(commands, "list", "list the keys of the file").set_defaults(run=_list)
    revoke = _add(commands, "revoke", "remove a key from the file; servers notice by themselves")
    revoke.set_defaults(run=_revoke)
    revoke.add_argument("name", metavar="NAME", help="whose key it is")
    return parser


def _add(commands: Any, name: str, does: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=does, description=f"{does[0].upper()}{does[1:]}.")
    command.add_argument("--file", type=Path, default=USUAL_FILE, help="the key file; usually keys.txt")
    return command


def _create(options: argparse.Namespace) -> None:
    """Print the key alone to stdout, so that it can be piped to where it is to be kept."""
    if not NAME_PATTERN.fullmatch(options.name):
        raise SettingsInvalid("NAME: expected 1 to 64 letters, digits and '_.@-', the first a letter or digit")
    groups = parse_groups(options.groups, "--groups")
    key = create_key()
    add_key(options.file, Key(options.name, groups, hash_key(key.encode())))
    sys.stdout.write(f"{key}\n")
    sys.stderr.write(f"It is not shown again: {options.file} holds its hash only. Clients send it as {HOW_TO_SEND}.\n")


def _list(options: argparse.Namespace) -> None:
    sys.stdout.write("".join(_write_table(KeyFile(options.file).keys.keys)))


def _write_table(keys: Sequence[Key]) -> Iterator[str]:
    width = max((len(key.name) for key in keys), default=0)
    for key in keys:
        groups = ",".join(group for group in GROUPS if group in key.groups)
        yield f"{key.name:<{width}}  {groups:<{len(','.join(GROUPS))}}  sha256 {key.digest.hex()[:12]}…\n"


def _revoke(options: argparse.Namespace) -> None:
    remove_key(options.file, options.name)
    sys.stderr.write(f"The key {options.name} is no longer good where {options.file} is used.\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

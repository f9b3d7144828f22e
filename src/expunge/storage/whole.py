"""Writing whole or not at all. No torch here.

A new folder or file is written under a temporary name beside its place, synced, and renamed. What
goes wrong on the way (a full disk, Ctrl-C) leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from expunge.errors import OutputError

__all__ = [
    "new_file",
    "new_folder",
    "private_folder",
    "refuse_existing",
    "refuse_unwritable",
    "replace_file",
    "utc_stamp",
    "write_private",
    "write_text",
]


def utc_stamp() -> str:
    """The time now, as run and audit folders carry it: 20250131T235959Z."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def refuse_existing(target: Path) -> None:
    """Raise OutputError where `target` exists or cannot be made; call it before any work."""
    if target.exists() or target.is_symlink():
        raise OutputError(
            f"Expected a place that does not exist yet, got {target}, which does. Results are "
            "written once: name another place, or move the old one away."
        )
    refuse_unwritable(target)


def refuse_unwritable(target: Path) -> None:
    """Raise OutputError where nothing new can be made at `target`."""
    above = target.absolute().parent
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OutputError(
            f"Expected to be able to write {target}, but {above} is not a folder that this user "
            "may write to. Name another place."
        )


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling to write into; it becomes `target` when the block ends well."""
    refuse_existing(target)
    temporary = _sibling(target)
    with _whole_or_nothing(target, temporary):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(folder) / name)
            _sync(Path(folder))
        refuse_existing(target)
        temporary.rename(target)
        _sync(target.parent)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield the name of a temporary sibling; it becomes `target` when the block ends well."""
    refuse_existing(target)
    temporary = _sibling(target)
    with _whole_or_nothing(target, temporary):
        temporary.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        refuse_existing(target)
        temporary.rename(target)
        _sync(target.parent)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file by a rename, with the file's own mode."""
    temporary = _sibling(path)
    with _whole_or_nothing(path, temporary):
        write_private(temporary, content)
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def _whole_or_nothing(target: Path, temporary: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _remove(temporary)
        raise OutputError(_explained(target, error)) from error
    except BaseException:
        _remove(temporary)
        raise


def _explained(target: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"Expected room for {target.name} in {target.parent}, but the disk is full. Free some "
            "space or write elsewhere (`--out`), and run again; nothing was left behind."
        )
    return (
        f"Expected to be able to write {target}, but that raised {error}. Name another place; "
        "nothing was left behind."
    )


def _sibling(target: Path) -> Path:
    return target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a public file, UTF-8."""
    path.write_text(text, encoding="utf-8")


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner may enter."""
    path.mkdir(mode=0o700)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; it was never more open than that."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)

"""Disks that can be cut off, broken and filled: ext4 in a file, where this machine lets us mount it."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
WITHOUT_FLUSHING_THE_JOURNAL = 2


class Disk:
    """An ext4 file system, mounted at `path`."""

    def __init__(self, folder: Path, *, megabytes: int) -> None:
        self._image, self.path = folder / "disk.img", folder / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", self._image)
        self.mount()

    def mount(self) -> None:
        """Mount it, as after a start of the machine: the journal is replayed."""
        _run("mount", "-o", "loop,errors=remount-ro", self._image, self.path)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk, and what was not synced is gone once it is mounted again."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(handle)

    def turn_read_only(self) -> None:
        """Find an error, as the kernel does when a disk goes bad: from now on nothing can be written."""
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        device = next(Path(each[0]).name for each in mounts if each[1] == str(self.path))
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.path / "fill").open("wb", buffering=0) as file:
            for size in (2**16, 2**10, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(size))
            os.fsync(file.fileno())

    def free(self) -> None:
        """Take away what `fill` put there."""
        (self.path / "fill").unlink()

    def unmount(self) -> None:
        """Unmount it; whoever used it must have been ended."""
        end = time.monotonic() + 60
        while subprocess.run(["umount", self.path], capture_output=True, check=False).returncode:
            if time.monotonic() > end:
                _run("umount", "-l", self.path)
                raise AssertionError(f"somebody still uses {self.path}")
            time.sleep(0.1)


@contextmanager
def a_disk(folder: Path, *, megabytes: int = 64) -> Iterator[Disk]:
    folder.mkdir(parents=True, exist_ok=True)
    disk = Disk(folder, megabytes=megabytes)
    try:
        yield disk
    finally:
        disk.unmount()


@cache
def why_no_disk() -> str:
    """Why this machine cannot mount a disk of ours; empty where it can."""
    try:
        with tempfile.TemporaryDirectory() as folder, a_disk(Path(folder), megabytes=8):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None)
        return (said or str(error)).strip()


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)

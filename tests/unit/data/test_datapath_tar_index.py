"""The scan of a tar's headers, against ``tarfile`` and against damage."""

from __future__ import annotations

import io
import random
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinode.data.tar_index import scan_tar
from sentinode.errors import IntegrityError

NAMES = st.text("abc/é.", min_size=1, max_size=160).map(lambda s: s.strip("/.").replace("//", "/") or "n")


def tar_of(members: list[tuple[str, bytes]], format_: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1.5 if format_ == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=700)), max_size=8),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_members_are_found_where_tarfile_finds_them(members: list[tuple[str, bytes]], format_: int) -> None:
    members = [(f"{i}{name}.bin", data) for i, (name, data) in enumerate(members)]
    content = tar_of(members, format_)
    found = {
        member.name: content[member.start : member.start + member.size]
        for entry in scan_tar(memoryview(content), "x.tar")
        for member in entry.members.values()
    }
    assert found == dict(members)


def test_members_of_a_sample_may_come_in_any_order() -> None:
    members = [(f"d/{key}.{suffix}", b"x") for key in "abc" for suffix in ("JPG", "cls", "seg.png")]
    random.Random(0).shuffle(members)
    entries = scan_tar(memoryview(tar_of(members)), "x.tar")
    assert sorted(entry.key for entry in entries) == ["d/a", "d/b", "d/c"]
    assert all(set(entry.members) == {"jpg", "cls", "seg.png"} for entry in entries)


@pytest.mark.parametrize("kept", range(0, 4096, 512))
def test_every_cut_is_noticed(kept: int) -> None:
    content = tar_of([("a.npy", b"1" * 600), ("a.cls", b"1")], tarfile.USTAR_FORMAT)
    whole = 512 + 1024 + 512 + 512 + 2 * 512
    assert len(scan_tar(memoryview(content[:whole]), "x.tar")) == 1
    if kept < whole:
        with pytest.raises(IntegrityError, match=r"x\.tar"):
            scan_tar(memoryview(content[:kept]), "x.tar")


@given(st.binary(max_size=2000))
def test_noise_is_never_a_tar(noise: bytes) -> None:
    if any(noise[:512]) or len(noise) < 1024:
        with pytest.raises(IntegrityError):
            scan_tar(memoryview(noise), "x.tar")


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_changed_header_is_noticed(place: int, change: int) -> None:
    content = bytearray(tar_of([("a.npy", b"1" * 600), ("a.cls", b"1")], tarfile.USTAR_FORMAT))
    content[place] ^= change
    try:
        entries = scan_tar(memoryview(bytes(content)), "x.tar")
    except IntegrityError:
        return
    # Only bytes outside the checked digits (padding of the checksum field) may change without notice.
    assert [entry.key for entry in entries] == ["a"]
    assert 148 <= place < 156


def test_a_member_that_comes_twice_is_an_error() -> None:
    with pytest.raises(IntegrityError, match="twice"):
        scan_tar(memoryview(tar_of([("a.npy", b"1"), ("a.npy", b"2")])), "x.tar")


def header_of(size: bytes, kind: bytes) -> bytes:
    """A header whose checksum is right, whatever it says."""
    header = bytearray(tarfile.TarInfo("a/").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size.ljust(12, b"\0"), kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "content",
    [
        header_of(b"-1000", b"5"),  # it led back to itself for ever
        *(
            header_of(b"%o" % len(record), b"x") + record.ljust(-(-len(record) // 512) * 512, b"\0")
            for record in (
                b"0 path=x\n",
                b"2 path=x\n",
                b"zz path=x\n",
                b"99 path=x\n",
                b"9" * 9000,
                b"-9 path=x\n",
            )
        ),
    ],
)
def test_a_length_that_cannot_be_is_an_error(content: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"x\.tar has no tar header at byte 0"):
        scan_tar(memoryview(content + tar_of([("a.npy", b"1")])), "x.tar")

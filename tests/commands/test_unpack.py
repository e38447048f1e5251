"""Zips of bundles: the same bytes for the same files, and nothing that leads out of the folder."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile

import pytest

from common.commands import unpack as module
from common.commands.unpack import unpack
from common.export import archive


@pytest.fixture
def packed(tmp_path):
    """The zip of a small bundle."""
    folder = tmp_path / "source" / "small"
    for name, text in (("configs/metadata.json", "{}"), ("models/model.pt", "weights"), ("docs/README.md", "read")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    archive.pack(folder, tmp_path / "small_v1.zip")
    return tmp_path / "small_v1.zip"


def test_round_trip(packed, tmp_path, capsys):
    """What was packed comes out, checked against the sum beside it; the clock and permissions leave no trace."""
    unpack(str(packed), str(tmp_path / "out"))
    source, out = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in (
        tmp_path / "source" / "small", tmp_path / "out" / "small",
    ))  # fmt: skip
    assert source == out and "compared with nothing" not in capsys.readouterr().out
    before = packed.read_bytes()
    for path in (tmp_path / "source").rglob("*.json"):
        path.chmod(0o600)
        path.touch()
    archive.pack(tmp_path / "source" / "small", packed)
    assert packed.read_bytes() == before
    with pytest.raises(FileExistsError, match="is there already"):
        unpack(str(packed), str(tmp_path / "out"))


def test_sum(packed, tmp_path):
    """A zip whose SHA-256 is not that which is given, or lies beside it, is not unpacked."""
    with pytest.raises(ValueError, match=f"SHA-256 is [0-9a-f]{{64}}, expected {'0' * 64}; it is not the file"):
        unpack(str(packed), str(tmp_path / "out"), sha256="0" * 64)
    packed.write_bytes(packed.read_bytes() + b" ")
    with pytest.raises(ValueError, match="SHA-256 is"):
        unpack(str(packed), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def member(name, text="x", mode=0o644 | stat.S_IFREG):
    """An entry of a zip."""
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    return info, text


REFUSED = {
    "absolute": ([member("/etc/passwd")], "the path '/etc/passwd', which leads out"),
    "parent": ([member("small/../../up")], "which leads out"),
    "backslash": ([member("small\\..\\up")], "which leads out"),
    "drive": ([member("C:/up")], "which leads out"),
    "link": ([member("small/link", "/etc/passwd", 0o777 | stat.S_IFLNK)], "'small/link' is a link or device"),
    "device": ([member("small/pipe", "", 0o644 | stat.S_IFIFO)], "'small/pipe' is a link or device"),
    "twice": ([member("small/a"), member("small/a", "y")], "holds a path twice"),
    "two folders": ([member("other/a")], "holds other, small, expected one folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(packed, tmp_path, case):
    """A zip that would write elsewhere, or is no bundle, is refused before anything is written."""
    members, message = REFUSED[case]
    packed.with_name(f"{packed.name}.sha256").unlink()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "a") as file:
        warnings.simplefilter("ignore")  # that a name is there already
        for info, text in members:
            file.writestr(info, text)
    with pytest.raises(ValueError, match=message):
        unpack(str(packed), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_no_bundle(packed, tmp_path):
    """One folder whose metadata.json is missing or no JSON, or whose name is hidden, and a sum that is none."""
    for top, metadata, message in (
        ("small", None, "has no configs/metadata.json"),
        ("small", "{", "is not JSON"),
        (".hidden", "{}", "holds .hidden, expected one folder, named with letters"),
    ):
        with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
            file.writestr(f"{top}/LICENSE", "free")
            if metadata:
                file.writestr(f"{top}/configs/metadata.json", metadata)
        with pytest.raises(ValueError, match=message):
            unpack(str(tmp_path / "other.zip"), str(tmp_path / "out"))
    packed.with_name(f"{packed.name}.sha256").write_text("")
    with pytest.raises(ValueError, match="expected 64 hexadecimal digits"):
        unpack(str(packed), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_full_disk(packed, tmp_path, monkeypatch):
    """What is wrong with the place is not blamed on the zip, and nothing is left."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match=r"cannot unpack to .*No space left.*make room"):
        unpack(str(packed), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_damaged(packed, tmp_path, monkeypatch):
    """Half a zip, one with a changed byte, no zip, an empty one, and one too large: errors that name the file."""
    whole = packed.read_bytes()
    packed.with_name(f"{packed.name}.sha256").unlink()
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    flipped = bytearray(whole)
    flipped[60] ^= 255
    for content, message in (
        (whole[: len(whole) // 2], "is damaged"),
        (bytes(flipped), "is damaged"),
        (b"text", "is damaged"),
        (empty.getvalue(), "holds nothing, expected one folder"),
    ):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match=f"{packed.name}.*{message}"):
            unpack(str(packed), str(tmp_path / "out"))
    packed.write_bytes(whole)
    monkeypatch.setattr(module, "LIMIT", 10)
    with pytest.raises(ValueError, match="would unpack to"):
        unpack(str(packed), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    with pytest.raises(FileNotFoundError, match="no such file"):
        unpack(str(tmp_path / "none.zip"), str(tmp_path / "out"))

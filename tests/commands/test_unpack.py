"""Zips of bundles: the same bytes for the same files, and nothing that leads out of the folder."""

import stat
import warnings
import zipfile
from unittest.mock import Mock

import pytest

from common.commands import unpack as module
from common.commands.unpack import unpack_bundle
from common.export import archive
from tests.refused import refused


@pytest.fixture
def packed(tmp_path):
    folder = tmp_path / "source" / "small"
    for name, text in (("configs/metadata.json", "{}"), ("models/model.pt", "weights"), ("docs/README.md", "read")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    archive.write_zip(folder, tmp_path / "small_v1.zip")
    return tmp_path / "small_v1.zip"


def not_unpacked(path, kind, *words, **options):
    refused(lambda: unpack_bundle(str(path), str(path.parent / "out"), **options), kind, *words)
    assert not list(path.parent.glob("out/*"))


def test_round_trip(packed, tmp_path, capsys):
    """What was packed comes out, checked against the sum beside it; the clock and permissions leave no trace."""
    unpack_bundle(str(packed), str(tmp_path / "out"))
    folders = (tmp_path / "source" / "small", tmp_path / "out" / "small")
    source, out = ({p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file()} for f in folders)
    assert source == out and "not verified" not in capsys.readouterr().out
    before = packed.read_bytes()
    for path in (tmp_path / "source").rglob("*.json"):
        path.chmod(0o600)
        path.touch()
    archive.write_zip(tmp_path / "source" / "small", packed)
    assert packed.read_bytes() == before
    refused(lambda: unpack_bundle(str(packed), str(tmp_path / "out")), FileExistsError, "out/small", "--output_dir")


def member(name, text="x", mode=0o644 | stat.S_IFREG):
    info = zipfile.ZipInfo(name)
    info.external_attr, info.create_system = mode << 16, 3
    return info, text


def test_a_zip_that_would_write_elsewhere_or_is_no_bundle_is_refused(tmp_path):
    bundle = member("small/configs/metadata.json", "{}")
    for members, words in (
        ([bundle, member("/etc/passwd")], ["'/etc/passwd'", "leads out"]),
        ([bundle, member("small/../../up")], ["leads out"]),
        ([bundle, member("small\\..\\up")], ["leads out"]),
        ([bundle, member("C:/up")], ["leads out"]),
        ([bundle, member("small/link", "/etc/passwd", 0o777 | stat.S_IFLNK)], ["'small/link' is a link or device"]),
        ([bundle, member("small/pipe", "", 0o644 | stat.S_IFIFO)], ["'small/pipe' is a link or device"]),
        ([bundle, member("small/a"), member("small/a", "y")], ["a path twice"]),
        ([bundle, member("other/a")], ["other, small", "one folder"]),
        ([member("small/LICENSE")], ["no configs/metadata.json"]),
        ([member("small/configs/metadata.json", "{")], ["not JSON"]),
        ([member(".hidden/configs/metadata.json", "{}")], [".hidden", "one folder, named with letters"]),
        ([], ["nothing", "one folder"]),
    ):
        with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
            warnings.simplefilter("ignore")  # that a name is there already
            for info, text in members:
                file.writestr(info, text)
        not_unpacked(tmp_path / "other.zip", ValueError, "other.zip", *words)


def test_what_cannot_be_unpacked_is_refused(packed, tmp_path, monkeypatch):
    # What is wrong with the place is not blamed on the zip, and nothing is left.
    with monkeypatch.context() as full:
        full.setattr(zipfile.ZipFile, "extractall", Mock(side_effect=OSError(28, "No space left on device")))
        not_unpacked(packed, OSError, "cannot unpack to", "No space left", "make room")
    assert not (tmp_path / "out").exists()
    # Another sum than is given or lies beside it, damage, too large, not there.
    whole, beside = packed.read_bytes(), packed.with_name(f"{packed.name}.sha256")
    not_unpacked(packed, ValueError, archive.compute_sha256(packed), "0" * 64, sha256="0" * 64)
    packed.write_bytes(whole + b" ")
    not_unpacked(packed, ValueError, "SHA-256 is")
    beside.write_text("")
    not_unpacked(packed, ValueError, "64 hexadecimal digits")
    beside.unlink()
    for content in (whole[: len(whole) // 2], whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], b"text"):
        packed.write_bytes(content)
        not_unpacked(packed, ValueError, packed.name, "is damaged")
    packed.write_bytes(whole)
    size = sum(info.file_size for info in zipfile.ZipFile(packed).infolist())
    monkeypatch.setattr(module, "LIMIT", size - 1)
    not_unpacked(packed, ValueError, packed.name, "would unpack to")
    not_unpacked(tmp_path / "none.zip", FileNotFoundError, "none.zip")
    monkeypatch.setattr(module, "LIMIT", size)
    unpack_bundle(str(packed), str(tmp_path / "out"))

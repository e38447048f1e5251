"""Volumes in each format that is read, against the same volume as NIfTI; and files that are none, with what helps."""

import bz2
import gzip
import itertools
import lzma
import os
import sys
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.nifti1 import Nifti1Extension
from nibabel.openers import Opener

from common.degradations import GaussianProfile
from common.io.formats import EXTENSIONS, get_extension
from common.io.images import open_image
from common.io.naming import make_case_stem
from common.io.read import check_length, digest_voxels
from common.program.cases.scan_kinds import explain_unsuitable_file
from common.transforms import CheckHeaderd, LoadScand, SaveVolumed
from tests.refused import has, refused
from tests.transforms.grids import affine_of, super_resolve, told, warned

BLOCKS = GaussianProfile((2, 2, 2))
AFFINE = affine_of("PIR", (0.9, 1.1, 2.0), (12, -8, 5), (-31.5, 17.25, -60.125))
VOXELS = np.random.default_rng(0).integers(-300, 3000, (6, 7, 8)).astype(np.int16)
LPS = np.diag([-1, -1, 1, 1])


def save(path, voxels=VOXELS, affine=AFFINE, factor=0.0, compress=False, kind=None):
    """Write a volume as its name's ending says, by other code than reads it."""
    end = get_extension(path)
    if kind is not None or end in (".nii", ".nii.gz", ".mgz", ".mgh", ".img", ".hdr"):
        own = nib.MGHImage if end.startswith(".mg") else nib.Nifti1Pair if end in (".img", ".hdr") else nib.Nifti1Image
        nib.save((kind or own)(voxels, affine), path)
    elif end == ".head":
        delta = np.linalg.norm(affine[:3, :3], axis=0)
        numbers = {"DATASET_DIMENSIONS": voxels.shape, "DATASET_RANK": (3, 1), "BRICK_TYPES": (1,), "ORIENT": (0, 3, 4)}
        places = {"IJK_TO_DICOM_REAL": (LPS @ affine)[:3].ravel(), "DELTA": delta, "BRICK_FLOAT_FACS": (factor,)}
        text = "type = string-attribute\nname = BYTEORDER_STRING\ncount = 10\n'LSB_FIRST~\n\n"
        for sort, some in (("integer", numbers), ("float", places)):
            for name, values in some.items():
                line = " ".join(map(repr, map(float if sort == "float" else int, values)))
                text += f"type = {sort}-attribute\nname = {name}\ncount = {len(values)}\n {line}\n\n"
        path.write_text(text.rstrip() + "\n")
        path.with_suffix(".BRIK").write_bytes(voxels.astype("<i2").tobytes(order="F"))
    else:
        image = sitk.GetImageFromArray(voxels.T)
        matrix, spacing = (LPS @ affine)[:3, :3], np.linalg.norm(affine[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((matrix / spacing).ravel().tolist())
        image.SetOrigin((LPS @ affine)[:3, 3].tolist())
        sitk.WriteImage(image, str(path), compress)
    return path


def nrrd(path, spacings, *fields, sizes="6 7 8", encoding="raw"):
    """Write the volume as an NRRD with these fields."""
    head = ["NRRD0004", "type: short", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", f"spacings: {spacings}"]
    head += [*fields, f"encoding: {encoding}", "endian: little", "", ""]
    path.write_bytes("\n".join(head).encode() + VOXELS.tobytes(order="F"))
    return path


NAMES = "a.mgz a.mgh a.img a.hdr a.nrrd a.nhdr a.mha a.mhd".split()


@pytest.mark.parametrize(("name", "dtype"), [*itertools.product(NAMES, ("i2", "f4")), ("A+orig.HEAD", "i2")])
def test_each_format_gives_the_result_of_the_same_volume_as_nifti(tmp_path, name, dtype):
    voxels = VOXELS.astype(dtype)
    expected = super_resolve(save(tmp_path / "nifti.nii.gz", voxels), tmp_path / "expected", BLOCKS)
    path = save(tmp_path / name, voxels, compress=dtype == "f4")
    image = open_image(path)
    np.testing.assert_array_equal(np.reshape(image.dataobj, VOXELS.shape), voxels)
    assert image.get_data_dtype().newbyteorder("=") == dtype and make_case_stem(path) == name.split(".")[0]
    result, messages = warned(lambda: super_resolve(path, tmp_path, BLOCKS))
    assert not any(message.startswith(str(path)) for message in messages)
    assert result.get_data_dtype() == expected.get_data_dtype() == dtype
    np.testing.assert_array_equal(result.dataobj, expected.dataobj)
    np.testing.assert_allclose(result.affine, expected.affine, rtol=0, atol=2e-5)


def test_what_a_format_scales_itself_comes_back_as_floats_and_what_has_no_orientation_is_told_of(tmp_path):
    result = super_resolve(save(tmp_path / "a+tlrc.HEAD", factor=1e-6), tmp_path, BLOCKS)
    assert result.get_data_dtype() == np.float32
    np.testing.assert_allclose(result.get_fdata()[::2, ::2, ::2], 1e-6 * VOXELS, rtol=1e-5, atol=1e-9)
    mhd = save(tmp_path / "a.mhd")
    fields = "Modality = MET_MOD_CT\nElementToIntensityFunctionSlope = 1e-3\nNDims"
    mhd.write_text(mhd.read_text().replace("NDims", fields))
    assert "a CT, by its header" in explain_unsuitable_file(mhd) and explain_unsuitable_file(mhd, ct=True) is None
    segments = nrrd(tmp_path / "s.nrrd", "1 1 2", "Segment0_ID:=Segment_1")
    assert "label map, by its header" in explain_unsuitable_file(segments)
    result = super_resolve(mhd, tmp_path, BLOCKS)
    np.testing.assert_allclose(result.get_fdata()[::2, ::2, ::2], 1e-3 * VOXELS, atol=1e-6)
    image = open_image(nrrd(tmp_path / "n.nrrd", "900 1100 2000", 'units: "um" "um" "um"'))
    assert np.allclose(image.affine, np.diag([-0.9, -1.1, 2, 1]))
    has(" ".join(image.extra["notes"]), "um; converted to mm", "no orientation")
    # An axis that is no place, and one volume long.
    image = open_image(nrrd(tmp_path / "n.nrrd", "nan 1 1 2", "kinds: list space space space", sizes="1 6 7 8"))
    np.testing.assert_array_equal(image.dataobj, VOXELS)
    path = save(tmp_path / "b.img", affine=np.diag([-0.9, 1.1, 2, 1]), kind=nib.AnalyzeImage)
    told(lambda: CheckHeaderd("image")({"image": path}), "b.img", "no orientation", "right to left")
    path = patched(save(tmp_path / "c.mgh"), 28, bytes(2))
    told(lambda: CheckHeaderd("image")({"image": path}), "c.mgh", "no orientation", "goodRASFlag", "(1.0, 1.0, 1.0)")
    path = patched(save(tmp_path / "d.nii"), 108, bytes(4))
    result = told(lambda: super_resolve(path, tmp_path, BLOCKS), "d.nii", "vox_offset = 0")
    np.testing.assert_array_equal(result.dataobj[::2, ::2, ::2], VOXELS)


def test_header_fields_that_stay_true_stay(tmp_path):
    image = nib.Nifti1Image(VOXELS, AFFINE, dtype=np.int16)
    kept = {"cal_max": 900.0, "cal_min": -5.0, "aux_file": b"other.nii", "intent_name": b"T1w", "dim_info": 57}
    for name, value in {**kept, "toffset": np.nan}.items():
        image.header[name] = value
    image.header["pixdim"][4:6] = 2.5, np.inf
    image.header.set_xyzt_units("mm", "msec")
    for kind, content in (("comment", b"hello"), ("afni", b"<AFNI_attributes/>")):
        image.header.extensions.append(Nifti1Extension(kind, content))
    nib.save(image, tmp_path / "a.nii.gz")
    header = super_resolve(tmp_path / "a.nii.gz", tmp_path, BLOCKS).header
    assert {name: header[name].item() for name in kept} == kept
    assert header["pixdim"][4:6].tolist() == [2.5, 1] and header["toffset"] == 0
    assert header.get_xyzt_units() == ("mm", "msec")
    assert [own.get_content() for own in header.extensions] == [b"hello"]
    scan = LoadScand("image", "SI")({"image": tmp_path / "a.nii.gz"})["image"]
    saved = SaveVolumed("image", tmp_path, "sd", window=False)({"image": scan})["saved_to"]
    assert nib.load(saved).header["cal_max"] == 0
    # An extension that is none costs itself, not the scan.
    plain = bytearray(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    plain[352:356] = (2**30).to_bytes(4, "little")
    (tmp_path / "b.nii").write_bytes(plain)
    result = told(lambda: super_resolve(tmp_path / "b.nii", tmp_path, BLOCKS), "b.nii", "extensions cannot be read")
    assert not result.header.extensions and result.shape == (12, 14, 16)


def unlinked(path, ending):
    save(path)
    path.with_suffix(ending).unlink()


def patched(path, at, content):
    np.memmap(path, np.uint8, "r+")[at : at + len(content)] = np.frombuffer(content, np.uint8)
    return path


def flipped(path, at=-40, compress=True):
    save(path, compress=compress)
    patched(path, len(path.read_bytes()) + at, bytes([path.read_bytes()[at] ^ 255]))


def test_what_cannot_be_read_is_refused_with_what_helps(tmp_path, monkeypatch):
    nii = save(tmp_path / "whole.nii").read_bytes()
    for name, make, words in [
        ("a.nii", lambda p: p.write_bytes(gzip.compress(nii)), ["add .gz to its name"]),
        ("a.nii.gz", lambda p: p.write_bytes(nii), ["take .gz off its name"]),
        ("b.nii.gz", lambda p: p.write_bytes(b""), ["empty", "whole copy"]),
        ("twice.nii.gz", lambda p: p.write_bytes(gzip.compress(gzip.compress(nii))), ["compressed twice", "gunzip"]),
        ("z.nii.gz", lambda p: zipfile.ZipFile(p, "w").writestr("a.nii", nii), ["zip archive", "unzip"]),
        ("z.nii", lambda p: p.write_bytes(bz2.compress(nii)), ["bunzip2"]),
        ("z.mgz", lambda p: p.write_bytes(lzma.compress(nii)), ["unxz"]),
        ("y.nii.gz", lambda p: p.write_bytes(b"\n<!DOCTYPE html><html>"), ["web page", "get the scan again"]),
        ("w.nii.gz", lambda p: p.write_bytes(gzip.compress(nii) + b"<html>"), ["other bytes follow", "gunzip"]),
        ("c.nrrd", lambda p: nrrd(p, "1 1 nan"), ["'spacings: 1 1 nan'", "unknown"]),
        ("d.nrrd", lambda p: nrrd(p, "1 1 2", encoding="BZ2"), ["bzip2", "gzip or raw"]),
        ("e.img", lambda p: p.write_bytes(bytes(128) + b"DICM" + bytes(500)), ["e.hdr", "not there"]),
        ("f.nii", lambda p: p.write_bytes(bytes(128) + b"DICM" + bytes(500)), ["DICOM", "mri-sr"]),
        ("g.img", lambda p: unlinked(p, ".hdr"), ["g.hdr", "not there"]),
        ("h.hdr", lambda p: unlinked(p, ".img"), ["h.img", "not there"]),
        ("i+orig.HEAD", lambda p: unlinked(p, ".BRIK"), ["i+orig.BRIK", "not there"]),
        ("j.mhd", lambda p: unlinked(p, ".raw"), ["j.raw", "not there"]),
        ("k.nhdr", lambda p: unlinked(p, ".raw"), ["k.raw", "not there"]),
        ("l.nrrd", flipped, ["damaged"]),
        ("m.mha", flipped, ["damaged"]),
        ("n.nrrd", lambda p: p.write_bytes(save(p).read_bytes()[:-9]), ["damaged"]),
        ("o.mha", lambda p: p.write_bytes(save(p).read_bytes()[:-9]), ["damaged"]),
        ("q.mgh", lambda p: p.write_bytes(save(p).read_bytes()[:-90]), ["cut off"]),
        ("r+orig.HEAD", lambda p: save(p).with_suffix(".BRIK").write_bytes(bytes(99)), ["99 bytes", "cut off"]),
        ("s.mha", lambda p: sitk.WriteImage(sitk.Image([4] * 3, sitk.sitkVectorUInt8, 3), str(p)), ["vector", "one"]),
        ("t.nrrd", lambda p: sitk.WriteImage(sitk.Image([4] * 3, sitk.sitkComplexFloat32), str(p)), ["one real"]),
        ("t2.nrrd", lambda p: nrrd(p, "1 1 2 1", "space: LPS", "kinds:" + 4 * " space", sizes="6 7 8 1"), ["list"]),
        ("u.mha", lambda p: p.write_bytes(save(p).read_bytes().replace(b"ElementSpacing", b"X")), ["no voxel sizes"]),
        ("v.nrrd", lambda p: sitk.WriteImage(sitk.Image([4, 4, 4, 2], sitk.sitkInt16), str(p)), ["(4, 4, 4, 2)"]),
        ("\udcfc.nrrd", lambda p: p.write_bytes(save(tmp_path / "u.nrrd").read_bytes()), ["UTF-8", "rename"]),
        ("x.nii", lambda p: patched(save(p), 40, b"\x09"), ["dim[0] = 9"]),
        ("w.dscalar.nii", lambda p: p.write_bytes(zlib.compress(nii)), ["expected NIfTI", "MetaImage"]),
    ]:  # fmt: skip
        make(tmp_path / name)
        refused(lambda path=tmp_path / name: CheckHeaderd("image")({"image": str(path)}), ValueError, name, *words)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    refused(lambda: open_image(tmp_path / "l.nrrd"), ValueError, "l.nrrd", "pip install SimpleITK")


def test_endings_are_found_whatever_their_case_and_names_lose_them():
    for end in EXTENSIONS:
        assert get_extension(f"a.b{end}") == get_extension(f"A.B{end}".upper()) == end
        assert make_case_stem(f"x/A.b{end.upper()}") == "A.b"
    assert get_extension("a.nii.txt") is None and make_case_stem("a/series") == "series"


def test_a_file_is_opened_once_for_its_header_and_once_for_its_voxels(tmp_path, monkeypatch):
    """Until it changes; nibabel opens it once more, to see what it is."""
    path, opened = tmp_path / "a.nii", []
    nib.save(nib.Nifti1Image(np.arange(4096.0, dtype=np.float32).reshape(16, 16, 16), np.eye(4)), path)
    os.utime(path, (1e9, 1e9))
    real = Opener.__init__
    monkeypatch.setattr(Opener, "__init__", lambda *args, **more: (opened.append(args[1]), real(*args, **more))[1])
    for _ in range(2):
        assert explain_unsuitable_file(path) is None
        volume = LoadScand("image", "SI", normalise=False)({"image": str(path)})["image"]
        digest = digest_voxels(path)
    assert [*map(str, opened)].count(str(path)) == 4, [*map(str, opened)]
    nib.save(nib.Nifti1Image(volume[0].numpy() + 1, np.eye(4)), path)
    assert digest_voxels(path) != digest


def test_a_file_that_is_cut_off_is_known_by_its_length(tmp_path):
    """Not one of several parts, whose last is short; what is damaged within is found when the whole is read."""
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((20, 20, 20)), np.eye(4)), tmp_path / "whole.nii")
    plain = (tmp_path / "whole.nii").read_bytes()
    packed = bytearray(gzip.compress(plain))
    files = {"cut.nii": plain[:30000], "cut.nii.gz": packed[:30000]}
    (tmp_path / "parts.nii.gz").write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    packed[len(packed) // 2] ^= 255
    files["within.nii.gz"] = packed
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        refused(lambda name=name: check_length(tmp_path / name, name.startswith("within")), ValueError, name, "damaged")
    check_length(tmp_path / "within.nii.gz")
    check_length(tmp_path / "parts.nii.gz")

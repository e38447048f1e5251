"""Inputs that are damaged in ways drawn from a seed: NIfTI, sidecars, checkpoints, DICOM series."""

import gzip
import json
import os
import re
import shutil
import signal
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import torch

SEED = int(os.environ.get("SEED", "0"))
COUNT = int(os.environ.get("MALFORMED", "50"))  # of each of the four kinds

# Of a NIfTI-1 header: offset, format, and values that are wrong or strange there.
_HEADER = {
    "sizeof_hdr": (0, "<i", (0, -1, 540, 0x5C010000)),
    "dim[0]": (40, "<h", (0, 1, 2, 4, 5, 7, 8, -3, 1000)),
    **{f"dim[{i}]": (40 + 2 * i, "<h", (0, 1, -5, 32767)) for i in (1, 2, 3)},
    "datatype": (70, "<h", (0, 1, 3, 32, 128, 1536, 1792, 2304, 9999)),
    "bitpix": (72, "<h", (0, 1, 64, -8)),
    **{f"pixdim[{i}]": (76 + 4 * i, "<f", (np.nan, np.inf, 0.0, -1.0, 1e30)) for i in (0, 1, 3, 4)},
    "pixdim": (80, "<3f", ((0.0,) * 3, (9e-4, 9e-4, 1e-3), (900.0, 900.0, 1000.0))),
    "vox_offset": (108, "<f", (np.nan, np.inf, 0.0, -1e9, 1e12, 353.7)),
    "scl_slope": (112, "<f", (np.nan, np.inf, 0.0, 1e38)),
    "scl_inter": (116, "<f", (np.inf, -1e38)),
    "xyzt_units": (123, "<B", (0, 1, 3, 5, 7, 58, 255)),
    "cal_max": (124, "<2f", ((np.nan, np.inf),)),
    "toffset": (136, "<f", (np.nan,)),
    "qform_code": (252, "<h", (-1, 99)),
    "sform_code": (254, "<h", (0, -1, 99)),
    # Both codes, then the quaternion.
    **{f"forms[{i}]": (252, "<2h3f", ((i, 0, 0, 0, 1.0000007), (i, 0, 2, 0, 0), (i, 1, 0, np.nan, 0))) for i in (0, 1)},
    "srow": (280, "<12f", ((np.nan,) * 12, (0.0,) * 12)),
    "srow_x": (280, "<4f", ((np.nan,) * 4, (0.0,) * 4, (np.inf,) * 4, (1e30,) * 4)),
    "srow_z": (312, "<4f", ((np.nan,) * 4, (0.0,) * 4)),
    "magic": (344, "4s", (b"abcd", b"ni1\0", b"n+2\0")),
}

# What voxels may hold: none, fill values, hot ones.
_VOXELS = (np.nan, np.inf, -np.inf, -32768, 65535, -1024, 1e5, 1e20, -1e30, 3.4e38)


def niftis(valid: Path, folder: Path) -> list[Path]:
    """Damaged copies of a volume, .nii.gz, put into a folder as ``malformed_<n>_<how>.nii.gz``."""
    rng = np.random.default_rng([SEED, 1])
    plain = gzip.decompress(valid.read_bytes())
    fields = [(name, offset, code, value) for name, (offset, code, values) in _HEADER.items() for value in values]
    files = []
    for n in range(COUNT):
        data = bytearray(plain)
        kind = ("field", "field", "flips", "short", "gzip", "voxels", "other")[n % 7]
        if kind == "field":
            name, offset, code, value = fields[rng.integers(len(fields))]
            struct.pack_into(code, data, offset, *(value if isinstance(value, tuple) else (value,)))
            kind = f"{name}_{value}"
        elif kind == "flips":
            for offset in rng.integers(348, size=rng.integers(1, 40)):
                data[offset] = rng.integers(256)
        elif kind == "short":
            del data[rng.integers(len(data)) :]
        elif kind == "voxels":
            voxels, bad = np.frombuffer(bytes(data[352:]), "<f4").copy(), float(rng.choice(_VOXELS))
            some, how = rng.integers(len(voxels), size=rng.integers(1, 99)), rng.random()
            if how < 0.15:
                voxels[:], kind = 7.5, "constant"
            elif how < 0.35:
                voxels, kind = np.minimum(voxels / voxels.max() * 2**31, 2**31 - 129).astype("<i4"), "full_scale"
                struct.pack_into("<2h", data, 70, 8, 32)
            else:
                voxels[some if how < 0.7 else slice(rng.integers(len(voxels) // 2))], kind = bad, f"voxels_{bad}"
            data[352:] = voxels.tobytes()
        packed = gzip.compress(bytes(data), 1)
        if kind == "gzip":
            packed = bytearray(packed)
            for offset in rng.integers(len(packed), size=3):
                packed[offset] = rng.integers(256)
        elif kind == "other":
            packed = (b"", b"no image at all", bytes(data), rng.bytes(1000), packed[:30])[rng.integers(5)]
        files.append(folder / f"malformed_{n:03d}_{re.sub('[^0-9A-Za-z.-]+', '_', kind)}.nii.gz")
        files[-1].write_bytes(packed)
    return files


# Of a sidecar JSON: keys that are read, and values that are wrong or strange there.
_ANY = (None, True, "", "x", [], {}, [[]], -1, 0, 10**400, float("nan"), float("-inf"), "\u2028", "9" * 10**5)
_SIDECAR = {
    "SliceThickness": (*_ANY, "5", [5, 5], 1e9, "nan"),
    "SliceEncodingDirection": (*_ANY, "k", "z", ["k"], "j-"),
    "ImageType": (*_ANY, [None, "M"], ["P"], "DERIVED\\ADC"),
    "Modality": (*_ANY, "mr", "CT", ["MR"]),
    "Units": (*_ANY, "rad", ["Hz"]),
    "SkullStripped": (*_ANY, "false"),
    "SpatialReference": (*_ANY, {"x": float("nan")}),
}


def sidecars(path: Path) -> Iterator[str]:
    """What was done to it, while the damaged JSON is at a path, one after another."""
    rng = np.random.default_rng([SEED, 5])
    for n in range(COUNT):
        key, values = list(_SIDECAR.items())[rng.integers(len(_SIDECAR))]
        value = values[rng.integers(len(values))]
        encoding = str(rng.choice(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"]))
        content = {"SliceThickness": 3, "InstitutionName": "Universit\u00e4t", key: value}
        data = bytearray(json.dumps(content, ensure_ascii=False).encode(encoding, "replace"))
        kind = ("value", "value", "bytes", "short", "other")[n % 5]
        if kind == "bytes":
            for offset in rng.integers(min(len(data), 200), size=3):
                data[offset] = rng.integers(256)
        elif kind == "short":
            del data[rng.integers(len(data)) :]
        elif kind == "other":
            data = (b"", b"[4]", b"4", b"null", b"[" * 10**5, b'{"a": 1,}', bytes(50), rng.bytes(500))[n // 5 % 8]
        path.write_bytes(data)
        yield f"{kind} {key} {str(value)[:20]!r} {encoding}"


def checkpoints(valid: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """What was done to it and a damaged copy of a ``state_dict``, one after another under one name in a folder."""
    rng = np.random.default_rng([SEED, 2])
    whole, state, path = valid.read_bytes(), torch.load(valid, weights_only=True), folder / "malformed.pt"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(folder / "code_was_run"),)

    for n in range(COUNT):
        name = list(state)[rng.integers(len(state))]
        kind = ("short", "bytes", "missing", "size", "extra", "nan", "object", "code", "text", "empty")[n % 10]
        changed: object = dict(state)
        if kind == "missing":
            del changed[name]
        elif kind == "size":
            own, longer = state[name], torch.zeros(*state[name].shape, 2)
            others = (longer, own.to(torch.complex64), own.to("meta"), longer.to_sparse(), own.bool())
            changed[name] = others[rng.integers(len(others))]
        elif kind == "extra":
            changed["unknown" if rng.random() < 0.5 else 1] = torch.zeros(1)
        elif kind == "nan":
            changed[name] = torch.full(state[name].shape, torch.nan)
        elif kind == "object":
            changed = [1, 2, "three"] if rng.random() < 0.5 else {**state, name: "text"}
        elif kind == "code":
            changed = {**state, name: Evil()}
        torch.save(changed, path)
        if kind == "short":
            path.write_bytes(whole[: rng.integers(1, len(whole))])
        elif kind == "bytes":  # anywhere, or in the directory at the end of the file, which names what is where
            data, start = bytearray(whole), rng.choice([0, len(whole) - 400])
            for offset in rng.integers(start, len(data), size=5):
                data[offset] = rng.integers(256)
            path.write_bytes(bytes(data))
        elif kind in ("text", "empty"):
            path.write_bytes(b"no weights" if kind == "text" else b"")
        yield f"{kind} {name}", path


# Of a DICOM image: attributes that matter to where and what its values are, and values that are wrong there.
_DICOM = {
    "PixelSpacing": (None, ["1e-9", "1e-9"], [0, 1], [-1, 1], ["1e30", "1"], ["nan", "1"], "1", "a\\b", [1, 1, 1]),
    "ImageOrientationPatient": (None, [0] * 6, [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], "1\\0", ["x"] * 6),
    "ImagePositionPatient": (None, [0, 0, 0], ["nan", "0", "0"], ["1e38", "0", "0"], [1, 2], "text"),
    "Rows": (0, 1, 27, 65535),
    "Columns": (0, 1, 31, 65535),
    "BitsAllocated": (0, 1, 8, 12, 32, 64),
    "BitsStored": (0, 17, 40),
    "HighBit": (0, 40),
    "PixelRepresentation": (2, 65535),
    "SamplesPerPixel": (0, 3),
    "PhotometricInterpretation": ("RGB", "MONOCHROME1", "YBR_FULL", ""),
    "NumberOfFrames": (0, -1, 2, "x"),
    "RescaleSlope": ("0", "nan", "inf", "x", "1e300"),
    "RescaleIntercept": ("nan", "inf", "x"),
    "SliceThickness": ("x", "nan", "-5", "0"),
    "SeriesNumber": ("x", "-1", "2147483647", "99999999999"),
    "PixelData": (b"", b"\0", bytes(10**5)),
    "SOPClassUID": ("", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.2", "x"),
    "SOPInstanceUID": ("", "not a uid", "1." * 40),
    "SeriesInstanceUID": ("", "1.2.3", "not a uid"),
    "StudyInstanceUID": ("", "1.2.3", "../up"),
    "FrameOfReferenceUID": ("", "1.2.3", "not a uid"),
    "Modality": ("", "CT", "XX"),
    "ImageType": (
        "",
        "X",
        *(["ORIGINAL", "PRIMARY", word] for word in ("P", "I", "ADC", "MOSAIC", "MIP", "M")),
        ["MPR"],
    ),
    "ComplexImageComponent": ("", "PHASE", "MIXED", "x"),
    "PixelPaddingValue": (0, 300, 65535),
    "EchoNumbers": ("x", "2", ["1", "2"]),
    "InstanceNumber": ("", "x", "-5"),
    "SpecificCharacterSet": ("nonsense", ["ISO 2022 IR 87", "x"]),
    "PatientName": ("\0\1", "a" * 500, "a^b^c^d^e^f^g=x=y=z"),
    "StudyDate": ("notadate", "99999999"),
    "EchoTime": ("x", "nan"),
}


def dicom_series(images: Callable[[], list], folder: Path) -> Iterator[tuple[str, Path]]:
    """What was done to it and the folder of a damaged series, of which ``images`` makes a valid one.

    Some lack 'DICM', have a copy of a file, or rounded positions, and their damage must be found all the same.
    """
    rng = np.random.default_rng([SEED, 4])
    for n in range(COUNT):
        series, kind = images(), ("one", "all", "one", "removed", "slices", "bytes", "short")[n % 7]
        keyword, values = list(_DICOM.items())[rng.integers(len(_DICOM))]
        value, form = values[rng.integers(len(values))], ("", "raw", "copy", "rounded")[rng.integers(4)]
        changed = series if kind == "all" else [series[rng.integers(1, len(series))]]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for image in series:
                for element in image:  # or these would depend on what is taken out
                    element.VR = {"OB or OW": "OW", "US or SS": "US"}.get(element.VR, element.VR)
            for image in changed:
                if kind == "removed":
                    image.pop(keyword, None)
                elif kind in ("one", "all"):
                    _set(image, keyword, value)
            if kind == "slices":
                for _ in range(rng.integers(1, 4)):
                    series.pop(rng.integers(1, len(series) - 1))
            (path := folder / str(n)).mkdir(parents=True)
            for i, image in enumerate(series):
                if form == "rounded" and keyword != "ImagePositionPatient":
                    image.ImagePositionPatient = [round(float(x), 1) for x in image.ImagePositionPatient]
                image.preamble, options = bytes(128), {}  # or it would be written without
                if form == "raw":
                    image.preamble, options = None, {"implicit_vr": n % 2 == 0, "little_endian": True}
                    image.file_meta.clear()
                image.save_as(path / f"{i:04d}.dcm", **options)
            if form == "copy":
                shutil.copy(path / "0001.dcm", path / "0001 (1).dcm")
        file = path / f"{rng.integers(len(series)):04d}.dcm"
        data = bytearray(file.read_bytes())
        if kind == "short":
            file.write_bytes(data[: rng.integers(len(data))])
        elif kind == "bytes":
            for offset in rng.integers(128, min(len(data), 2500), size=rng.integers(1, 30)):
                data[offset] = rng.integers(256)
            file.write_bytes(data)
        yield f"{form} {kind} {keyword} {str(value)[:20]!r}", path


def _set(image, keyword: str, value: object) -> None:
    """Give an image a value, also one that pydicom would not take: text is written as it is."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    if isinstance(value, (str, list)):
        tag = Tag(tag_for_keyword(keyword))
        content = "\\".join(map(str, value if isinstance(value, list) else [value])).encode()
        content += b" " * (len(content) % 2)
        # Some programs write another representation than the dictionary's.
        vr = "LO" if dictionary_VR(tag) in ("IS", "DS") and len(content) % 4 == 0 else dictionary_VR(tag)
        image[tag] = RawDataElement(tag, vr, len(content), content, 0, False, True)
    else:
        setattr(image, keyword, value)


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail where a block takes longer: it hangs."""
    before = signal.signal(signal.SIGALRM, Mock(side_effect=TimeoutError(f"nothing after {seconds} s")))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def unclear(message: str, name: str) -> str | None:
    """Why a message is no clear error about a file, or None."""
    if name not in message:
        return f"does not name {name}: {message}"
    if "Traceback" in message or re.search(r"(^|: )[A-Z]\w*(Error|Exception)\b", message.replace(name, "")):
        return f"names an exception: {message}"
    if len(re.findall(r"[A-Za-z]{2,}", message.replace(name, ""))) < 4:
        return f"says too little: {message}"
    return None

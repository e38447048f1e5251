"""Read the pixels of DICOM images in the images' units."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.pixels import get_decoder, pixel_array
from pydicom.uid import UID
from scipy import ndimage

from ...runtime.errors import Notice
from .files import open_file, silence_pydicom
from .tags import get_numbers


def read_voxels(headers: Sequence[Dataset]) -> np.ndarray:
    """Read the pixels of a stack.

    Args:
        headers: headers of its files, in the order of :func:`~common.program.dicom.geometry.sort_into_stack`.

    Returns:
        ``(slices, rows, columns)``, float32, in the units after the files' rescale.
    """
    opened: dict[str, Dataset] = {}
    slices, paddings = zip(*(read_slice(header, opened) for header in headers), strict=True)
    voxels, padding = np.stack(slices), np.stack(paddings)
    if padding.all() and voxels.any():
        raise ValueError(
            f"series {headers[0].SeriesInstanceUID}: every voxel is padding by PixelPaddingValue and "
            f"PixelPaddingRangeLimit, expected an image; mend these tags, or convert the series to NIfTI with dcm2niix."
        )
    if padding.any():
        padding = _restore_signal(padding, voxels, headers[0].SeriesInstanceUID)
        # Padding is no signal, so 0, or the signal value nearest to 0.
        signal = voxels[~padding] if not padding.all() else np.zeros(1, np.float32)
        changed = padding & (voxels != 0)
        voxels[changed] = np.clip(np.float32(0), signal.min(), signal.max())
        if count := np.count_nonzero(changed):
            warnings.warn(
                f"series {headers[0].SeriesInstanceUID}: {count} of {voxels.size} voxels are padding by their "
                f"PixelPaddingValue; taken for no signal, {signal.min().clip(0, signal.max()):g}.",
                Notice,
                stacklevel=2,
            )
    return voxels


def _restore_signal(padding: np.ndarray, voxels: np.ndarray, uid: str) -> np.ndarray:
    """Take signal that has the declared padding value out of the padding, with a warning.

    Padding covers areas of at least 3 x 3 pixels, some of which may lie beyond the image. This is checked only if the
    signal has such values.

    Args:
        padding: ``(slices, rows, columns)``, true for pixels of the declared value.
        voxels: values of the same shape.
        uid: SeriesInstanceUID of the series.
    """
    signal, declared = voxels[~padding], voxels[padding]
    if not signal.size or declared.min() > signal.max() or declared.max() < signal.min():
        return padding
    block = np.ones((1, 3, 3), bool)
    areas = ndimage.binary_opening(np.pad(padding, [(0, 0), (2, 2), (2, 2)], constant_values=True), block)
    areas = ndimage.binary_propagation(areas[:, 2:-2, 2:-2], block, mask=padding)
    if count := np.count_nonzero(padding & ~areas & (voxels != 0)):
        warnings.warn(
            f"series {uid}: {count} voxels have the declared PixelPaddingValue, but lie scattered among voxels with "
            "signal of such values; taken for signal. If they are padding, mask them and convert the series to NIfTI.",
            stacklevel=3,
        )
    return areas


def get_rescale(header: Dataset) -> tuple[float, float]:
    """Slope and intercept from stored integers to the image's units; 1 and 0 if the file has none."""
    slope = get_numbers(header, "RescaleSlope", 1)[0] if "RescaleSlope" in header else 1.0
    intercept = get_numbers(header, "RescaleIntercept", 1)[0] if "RescaleIntercept" in header else 0.0
    return slope, intercept


@silence_pydicom()
def read_slice(header: Dataset, opened: dict[str, Dataset] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a file or frame in its units, float32; and which of them it declares as padding.

    Args:
        header: of the image.
        opened: the file that was read last, by its path, so that it is not read again for each of its frames.
    """
    path, index = header.filename, getattr(header, "frame", 0)
    slope, intercept = get_rescale(header)
    opened = {} if opened is None else opened
    try:
        if path not in opened:
            opened.clear()
            opened[path] = open_file(path)
        image = opened[path]
        syntax = image.file_meta.TransferSyntaxUID
        compressed = syntax.is_compressed
    except Exception as error:
        raise ValueError(f"{path}: the file cannot be read ({error}); get a whole copy of it.") from None
    if "FloatPixelData" in image or "DoubleFloatPixelData" in image:
        raise ValueError(
            f"{path}: pixels as floating-point numbers (Float Pixel Data), which an MR image cannot have; expected "
            "integers (Pixel Data). Export the series from the scanner, or convert it to NIfTI."
        )
    if "PixelData" not in image:
        raise ValueError(f"{path}: no pixel data, expected an image; export the series with its pixels.")
    try:
        pixels = pixel_array(image, index=index)
        padding = _find_padding(header, image, pixels)
    except Exception as error:
        reason = " ".join(str(error).split())
        advice = "The file is damaged, get a whole copy of it."
        if compressed:
            advice = f"They are compressed, {syntax.name}; {_advise_decoders(syntax)}"
        elif image["PixelData"].is_undefined_length:
            advice = "The file does not say how they are compressed; export the series uncompressed."
        raise ValueError(f"{path}: the pixel data cannot be decoded ({reason}). {advice}") from None
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError(f"{path}: pixels of shape {pixels.shape}, expected {(header.Rows, header.Columns)}.")
    with np.errstate(over="ignore"):
        values = (pixels * slope + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give values beyond those of float32; "
            "the file is damaged, export the series again."
        )
    return values, padding


def _advise_decoders(syntax: UID) -> str:
    """What to do if pixels of a transfer syntax cannot be decoded."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return "pydicom has no decoder for this. Export the series uncompressed."
    advice = "the file is damaged or of another kind, get a whole copy of it" if decoder.is_available else ""
    packages = re.findall("pylibjpeg-[a-z]+", " ".join(decoder.missing_dependencies))
    other = f"install {'another' if advice else 'a'} decoder, pip install pylibjpeg {packages[0]}" if packages else ""
    return f"{'; or '.join(filter(None, (advice, other)))}; or export the series uncompressed."


def _find_padding(header: Dataset, image: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Which pixels are declared as padding: from PixelPaddingValue to PixelPaddingRangeLimit, if there is one."""
    first, last = (_get_stored_value(header.get(k), image) for k in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if first is None:
        return np.zeros(pixels.shape, dtype=bool)
    low, high = sorted((first, first if last is None else last))
    padding = (pixels >= low) & (pixels <= high)
    if image.BitsStored < image.BitsAllocated and not image.file_meta.TransferSyntaxUID.is_compressed:
        # Padding may need bits above BitsStored, which decoding removes.
        words = pixel_array(image, index=getattr(header, "frame", 0), correct_unused_bits=False)
        padding |= (words >= low) & (words <= high)
    return padding


def _get_stored_value(value: Any, image: Dataset) -> int | None:
    """An attribute's value as a stored pixel, whichever sign it was written with; None if it is not a number."""
    if isinstance(value, bytes) and value:
        value = int.from_bytes(value, "little")
    if not isinstance(value, int):
        return None
    bits = image.BitsAllocated
    value %= 1 << bits
    return value - (1 << bits) if image.PixelRepresentation == 1 and value >> (bits - 1) else value

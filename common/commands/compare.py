"""``python -m common compare``: a picture or a page of a scan, its cubic interpolation and its super-resolution."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..data.inputs import digest_voxels
from ..io.images import ending as format_of
from ..io.images import open_image
from ..metrics import cubic, psnr, ssim
from ..reports import about_result, case_figure, check_viewer, viewer
from ..transforms.scan.extremes import find_extremes, without_extremes


def compare(
    lr: str,
    sr: str,
    output: str,
    hr: str | None = None,
    at: Sequence[float] | None = None,
    size: float = 60.0,
    overwrite: bool = False,
) -> None:
    """Draw a scan, its cubic interpolation and its super-resolution side by side in three planes, as PNG or HTML.

    An HTML page opens in a browser without a network. Its planes are scrolled and zoomed together, and a curtain is
    drawn between two volumes (:func:`common.reports.viewer`). In a PNG all values are in units of the scan's 99.9th
    percentile.

    Detail that a network has added is in the result and not in the interpolation. The positions of LR voxels on the SR
    grid are read from the files' affines.

    Args:
        lr: the scan: a file that :func:`common.io.images.open_image` reads, or the folder or a file of a DICOM series.
        sr: its super-resolution, as mri-sr writes it: NIfTI, or the folder or a file of the derived DICOM series.
        output: the PNG or HTML file to write.
        hr: the truth on the grid of ``sr``, if known. Adds it and the errors, and PSNR and SSIM to a PNG.
        at: point in mm (world coordinates R, A, S) that the planes go through; default the middle of the head.
        size: with ``at``, edge in mm of what a PNG shows around the point.
        overwrite: whether to replace an existing file.

    Raises:
        FileNotFoundError: a file or folder is not there.
        FileExistsError: ``output`` is there, without ``overwrite``.
        ModuleNotFoundError: for HTML, without the package that brings NiiVue.
        ImportError: for DICOM, without the packages that read it.
        ValueError: ``output`` has another ending, a file or folder has no 3-D volume or several, the grids do not
            match, ``sr`` was made of another scan, or ``at`` is no point or lies outside of the volume.
    """
    ending = Path(output).suffix.lower()
    if ending not in (".png", ".html"):
        raise ValueError(
            f"compare: --output is {output}, expected a name that ends in .png, or in .html for a browser."
        )
    if Path(output).exists() and not overwrite:
        raise FileExistsError(
            f"compare: --output {output} is there, maybe of another scan; name another file, or replace it by "
            "--overwrite true."
        )
    if ending == ".html":
        check_viewer()
    if at is not None and not (isinstance(at, (list, tuple)) and len(at) == 3):
        raise ValueError(f"compare: --at is {at}, expected three numbers in mm such as --at=-52,8,36.")
    if not size > 0:
        raise ValueError(f"compare: --size is {size}, expected an edge in mm above 0.")
    names = {"lr": lr, "sr": sr} | ({} if hr is None else {"hr": hr})
    images = {key: _image(key, name) for key, name in names.items()}
    _check_made_of(lr, sr)
    affine = images["sr"].affine
    to_sr = np.linalg.solve(affine, images["lr"].affine)
    factors, offset = np.diag(to_sr)[:3], to_sr[:3, 3].round(3)
    whole = np.rint(factors)
    factors = np.where(np.abs(factors - whole) < 0.01, whole, factors)
    expected = tuple(round(n * f) for n, f in zip(images["lr"].shape, factors.tolist(), strict=True))
    turned = not np.allclose(to_sr[:3, :3], np.diag(factors), atol=0.01)
    if turned or factors.min() < 1 or images["sr"].shape != expected:
        raise ValueError(
            f"compare: {sr} with {images['sr'].shape} voxels does not lie on {lr} with {images['lr'].shape}: expected "
            "the same directions and field of view, and voxels of the same size or finer. Is it made from this scan?"
        )
    if hr is not None and (images["hr"].shape != expected or not np.allclose(images["hr"].affine, affine, atol=0.01)):
        raise ValueError(f"compare: {hr} does not lie on the grid of {sr}; crop or resample it first.")
    volumes = {
        key: np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32), posinf=0.0, neginf=0.0)
        for key, image in images.items()
    }
    # A fill value or a hot voxel would compress the scan's grey levels and cause ringing in its interpolation.
    for key, clean in _without_extremes(volumes).items():
        volumes[key], images[key] = clean, nib.Nifti1Image(clean, images[key].affine)
    zoom = None
    if at is not None:
        point = np.linalg.solve(affine, [*at, 1.0])[:3]
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, expected, strict=True)):
            raise ValueError(
                f"compare: --at {list(at)} mm is outside of {sr}, whose voxel there would be {point.round(1)}."
            )
        zoom = (point.tolist(), float(size))
    if ending == ".html":
        baseline = cubic(volumes["lr"], factors.tolist(), offset.tolist())
        shown = {"scan": images["lr"], "cubic": nib.Nifti1Image(baseline, affine), "SR": images["sr"]}
        shown |= {} if hr is None else {"HR": images["hr"]}
        viewer(output, shown, Path(lr).name, None if hr is None else "HR", at, about_result(sr))
        print(f"Wrote {output}")
        return
    low = min(float(volumes["lr"].min()), 0.0)
    high = float(np.quantile(volumes["lr"], 0.999))
    volumes = {key: (volume - low) / (high - low or 1.0) for key, volume in volumes.items()}
    baseline = cubic(volumes["lr"], factors.tolist(), offset.tolist())
    scores, truth = {}, volumes.get("hr")
    for key, volume in (("cubic", baseline), ("sr", volumes["sr"])):
        if truth is not None:
            pair = volume.clip(0, 1), truth.clip(0, 1)
            scores[key] = {"psnr": psnr(*pair), "ssim": ssim(*pair)}
    drawn = volumes["lr"], baseline, volumes["sr"], truth
    case_figure(output, *drawn, Path(lr).name, scores, affine, factors.tolist(), offset.tolist(), zoom=zoom)
    print(f"Wrote {output}")


def _check_made_of(lr: str, sr: str) -> None:
    """Refuse a result whose JSON says that it was made of other files than the scan."""
    inputs = (about_result(sr) or {}).get("Inputs") if format_of(sr) else None
    if format_of(lr) is None or not isinstance(inputs, list) or not all("File" in each for each in inputs):
        return
    if digest_voxels(lr) not in [each.get("Sha256") for each in inputs]:
        raise ValueError(
            f"compare: {sr} was made of {inputs[0]['File']}, whose voxels are not those of {lr}; name that scan, or "
            "super-resolve this one again."
        )


def _without_extremes(volumes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the volumes ``(X, Y, Z)``, cleaned if they have extreme voxels.

    A result keeps the extreme voxels of its scan, but as larger clumps that may look like objects. They are recognised
    by the values of the scan's extreme voxels.
    """
    scan = volumes["lr"]
    found = find_extremes(scan)
    least, most = -np.inf, np.inf
    if found is not None:
        rest, extremes = scan[~found], scan[found]
        # A tolerance of a hundredth, because DICOM rounds the values of a result.
        least = max((float(v) + 0.01 * abs(v) for v in extremes[extremes < rest.min()]), default=-np.inf)
        most = min((float(v) - 0.01 * abs(v) for v in extremes[extremes > rest.max()]), default=np.inf)
    clean = {} if found is None else {"lr": without_extremes(scan, found)}
    for key in volumes.keys() - {"lr"}:
        volume, own = volumes[key], find_extremes(volumes[key])
        extreme = (volume <= least) | (volume >= most) | (False if own is None else own)
        if extreme.any() and not extreme.all():
            clean[key] = without_extremes(volume, extreme)
    return clean


def _image(option: str, name: str) -> nib.spatialimages.SpatialImage:
    """The 3-D volume of a file, or of a DICOM series."""
    path = Path(name)
    if not path.exists():
        raise FileNotFoundError(f"compare: --{option} {name}: there is no such file or folder.")
    if path.is_dir() or format_of(path) is None:
        return _of_series(option, path)
    try:
        image = nib.squeeze_image(open_image(name))
    except ValueError as error:
        raise ValueError(f"compare: --{option} {error}") from None
    if len(image.shape) != 3:
        raise ValueError(f"compare: --{option} {name} has shape {image.shape}; expected a 3-D volume.")
    return image


def _of_series(option: str, path: Path) -> nib.Nifti1Image:
    """Return the volume of the DICOM series in a folder, or of the series that a file belongs to."""
    try:
        # Imported by name: an exported bundle has this command, but not the modules that read DICOM.
        dicom = importlib.import_module("...io.dicom", __name__)
    except ModuleNotFoundError:
        raise ImportError(
            f"compare: --{option} {path}: within a bundle this compares NIfTI files; name one, or use mri-sr compare."
        ) from None
    found = dicom.find_series(path if path.is_dir() else path.parent)
    if path.is_file():
        found = [series for series in found if series.has_file(path)]
    elif scans := [series for series in found if not series.derived]:
        found = scans  # mri-sr puts its results into the scan's folder
    if not found:
        what = "holds no DICOM series" if path.is_dir() else "is neither a volume nor DICOM"
        raise ValueError(f"compare: --{option} {path} {what}; name a NIfTI file, or the folder of a series.")
    if len(found) > 1:
        listed = "\n  ".join(f"{series.files[0] if series.files else ''} {series.description}" for series in found)
        raise ValueError(
            f"compare: --{option} {path} holds {len(found)} DICOM series; name a file of one of them:\n  {listed}"
        )
    if problem := found[0].problem or found[0].no_scan:
        raise ValueError(f"compare: --{option} {path}: {found[0].description}: {problem}")
    with tempfile.TemporaryDirectory() as folder:
        dicom.to_nifti(found[0], file := Path(folder) / "volume.nii")
        image = nib.load(file)
        return nib.Nifti1Image(np.asarray(image.dataobj), image.affine)  # type: ignore[attr-defined]

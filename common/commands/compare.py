"""``python -m common compare``: a picture or a page of a scan, its cubic interpolation and its super-resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ..geometry.affines import measure_factors
from ..geometry.resampling import resample_volume, sample_nearest
from ..io.formats import get_extension as format_of
from ..io.read import digest_voxels
from ..io.volume_or_series import open_volume
from ..metrics import compute_psnr, compute_ssim, interpolate_cubic
from ..reports import check_viewer, draw_case, read_result_record, save_figure, write_viewer
from ..reports.planes import PLANES
from ..transforms.scan.extremes import find_extremes, replace_extremes


def compare(
    scan: str,
    result: str,
    output: str,
    hr: str | None = None,
    position: Sequence[float] | None = None,
    size: float = 60.0,
    plane: str | None = None,
    overwrite: bool = False,
) -> None:
    """Draw a scan, its cubic interpolation and its super-resolution side by side in three planes, as PNG or HTML.

    Below the planes is a zoom of 4 where the result differs most from the interpolation, and the intensities along a
    line through it. An HTML page opens in a browser without a network. Its planes are scrolled and zoomed together, and
    a curtain is drawn between two volumes. In a PNG all values are in units of the scan's 99.9th percentile, or with
    ``hr`` of HR's, as in the tables of evaluations.

    Detail that a network has added is in the result and not in the interpolation. The positions of LR voxels on the SR
    grid are read from the files' affines. A scan on another grid, such as one of several stacks, is brought to that of
    the result, if the result's JSON says that it was made of this scan.

    Args:
        scan: the scan: a file that ``mri-sr`` reads, or the folder or a file of a DICOM series.
        result: its super-resolution, as mri-sr writes it: NIfTI, or the folder or a file of the derived DICOM series.
        output: the PNG or HTML file to write.
        hr: the truth on the grid of ``result``, if known. Adds it, the errors, PSNR and SSIM.
        position: point in mm (world coordinates R, A, S) that the planes go through; default the middle of the head.
        size: with ``position``, edge in mm of what a PNG shows around the point.
        plane: axial, coronal or sagittal, to draw only this plane in a PNG; default all three.
        overwrite: whether to replace an existing file.

    Raises:
        FileNotFoundError: a file or folder is not there.
        FileExistsError: ``output`` is there, without ``overwrite``.
        ModuleNotFoundError: for HTML, without the package that brings NiiVue.
        ImportError: for DICOM, without the packages that read it.
        ValueError: ``output`` has another ending, a file or folder has no 3-D volume or several, the grids do not
            match, ``result`` was made of another scan, ``plane`` is none of the three, or ``position`` is no point or
            lies outside of the volume.
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
    if position is not None and not (isinstance(position, (list, tuple)) and len(position) == 3):
        raise ValueError(
            f"compare: --position is {position}, expected three numbers in mm such as --position=-52,8,36."
        )
    if not size > 0:
        raise ValueError(f"compare: --size is {size}, expected an edge in mm above 0.")
    if plane not in (None, *PLANES):
        raise ValueError(f"compare: --plane is {plane}, expected {', '.join(PLANES)}.")
    names = {"scan": scan, "result": result} | ({} if hr is None else {"hr": hr})
    images = {key: open_volume(name, f"compare: --{key} {name}") for key, name in names.items()}
    is_known = _is_made_of(result, scan, images["scan"].extra)
    affine, shape = images["result"].affine, images["result"].shape
    found = measure_factors(images["scan"].affine, images["scan"].shape, affine, shape)
    if found is None and not is_known:
        raise ValueError(
            f"compare: {result} with {shape} voxels does not lie on {scan} with "
            f"{images['scan'].shape}: expected the same directions and field of view, and voxels of the same size or "
            "finer. Is it made from this scan?"
        )
    if hr is not None and (images["hr"].shape != shape or not np.allclose(images["hr"].affine, affine, atol=0.01)):
        raise ValueError(f"compare: {hr} does not lie on the grid of {result}; crop or resample it first.")
    volumes = {
        key: np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32), posinf=0.0, neginf=0.0)
        for key, image in images.items()
    }
    # A fill value or a hot voxel would compress the scan's grey levels and cause ringing in its interpolation.
    for key, clean in _replace_extreme_voxels(volumes).items():
        volumes[key], images[key] = clean, nib.Nifti1Image(clean, images[key].affine)
    zoom = None
    if position is not None:
        point = np.linalg.solve(affine, [*position, 1.0])[:3]
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, shape, strict=True)):
            raise ValueError(
                f"compare: --position {list(position)} mm is outside of {result}, whose voxel there would be "
                f"{point.round(1)}."
            )
        zoom = (point.tolist(), float(size))
    if found is None:  # one of several stacks, or of a grid that was asked for
        place = images["scan"].affine, shape, affine
        baseline = resample_volume(torch.from_numpy(volumes["scan"]), *place).numpy()
        lr = sample_nearest(volumes["scan"], *place)
        images["scan"] = images["result"]
    else:
        baseline, lr = interpolate_cubic(volumes["scan"], *found), volumes["scan"]
    arrays = {"scan": lr, "cubic": baseline, "SR": volumes["result"]}
    if hr is not None:
        arrays["HR"] = volumes["hr"]
    # As in the tables: of HR if it is there, else of the scan.
    unit = volumes.get("hr", volumes["scan"])
    low, high = min(float(unit.min()), 0.0), float(np.quantile(unit, 0.999))
    scaled = {title: (array - low) / (high - low or 1.0) for title, array in arrays.items()}
    scores = {}
    if hr is not None:
        for title in ("cubic", "SR"):
            pair = np.clip(scaled[title], 0, 1), np.clip(scaled["HR"], 0, 1)
            scores[title] = {"psnr": compute_psnr(*pair), "ssim": compute_ssim(*pair)}
            print(f"{title}: PSNR {scores[title]['psnr']:.2f} dB, SSIM {scores[title]['ssim']:.4f}")
    shown = arrays if ending == ".html" else scaled
    drawn = {
        title: nib.Nifti1Image(array, images["scan"].affine if title == "scan" else affine)
        for title, array in shown.items()
    }
    if ending == ".html":
        truth = None if hr is None else "HR"
        write_viewer(output, drawn, Path(scan).name, truth, position, read_result_record(result))
    else:
        planes = [plane] if plane else list(PLANES)
        save_figure(draw_case(drawn, Path(scan).name, scores, zoom, planes), output)
    print(f"Wrote {output}")


def _is_made_of(result: str, scan: str, known: Mapping[str, object]) -> bool:
    """Whether the result's JSON names the scan, or its series by what is ``known`` of it; False without a JSON."""
    inputs = (read_result_record(result) or {}).get("Inputs") if format_of(result) else None
    if not isinstance(inputs, list):
        return False
    if format_of(scan) is None:
        uid = known.get("SeriesInstanceUID")
        return uid is not None and uid in [each.get("SeriesInstanceUID") for each in inputs]
    if digest_voxels(scan) in [each.get("Sha256") for each in inputs]:
        return True
    if all("File" in each for each in inputs):
        raise ValueError(
            f"compare: {result} was made of {inputs[0]['File']}, whose voxels are not those of {scan}; name that scan, "
            "or super-resolve this one again."
        )
    return False


def _replace_extreme_voxels(volumes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the volumes ``(X, Y, Z)``, cleaned if they have extreme voxels.

    A result keeps the extreme voxels of its scan, but as larger clumps that may look like objects. They are recognised
    by the values of the scan's extreme voxels.
    """
    scan = volumes["scan"]
    scan_extremes = find_extremes(scan)
    least, most = -np.inf, np.inf
    if scan_extremes is not None:
        rest, extremes = scan[~scan_extremes], scan[scan_extremes]
        # A tolerance of a hundredth, because DICOM rounds the values of a result.
        least = max((float(v) + 0.01 * abs(v) for v in extremes[extremes < rest.min()]), default=-np.inf)
        most = min((float(v) - 0.01 * abs(v) for v in extremes[extremes > rest.max()]), default=np.inf)
    clean = {} if scan_extremes is None else {"scan": replace_extremes(scan, scan_extremes)}
    for key in volumes.keys() - {"scan"}:
        volume, volume_extremes = volumes[key], find_extremes(volumes[key])
        extreme = (volume <= least) | (volume >= most) | (False if volume_extremes is None else volume_extremes)
        if extreme.any() and not extreme.all():
            clean[key] = replace_extremes(volume, extreme)
    return clean

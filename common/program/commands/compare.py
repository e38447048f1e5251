"""``python -m common compare``: a picture or a page of a scan, its cubic interpolation and its super-resolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ...geometry.nearest import sample_nearest
from ...geometry.resampling import resample_volume
from ...metrics.baseline import interpolate_cubic
from ...metrics.volume import compute_psnr, compute_ssim, find_score_range, scale_to_range
from ...reports.case import draw_case
from ...reports.files import save_figure
from ...reports.planes import PLANES
from ...transforms.scan.extremes import find_extremes, replace_extremes
from ..pages.page import check_viewer, write_viewer
from ..volume import Volume, is_made_of, match_hr, measure_factors, place_stack


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
    the result, if the result's JSON says that it was made of this scan, and by the motion that it records.

    Args:
        scan: the scan: a file that ``mri-sr`` reads, or the folder or a file of a DICOM series.
        result: its super-resolution, as mri-sr writes it: NIfTI, or the folder or a file of the derived DICOM series.
        output: the PNG or HTML file to write.
        hr: the truth, if known; on another grid than ``result`` it is resampled. Adds it, the errors, PSNR and SSIM.
        position: point in mm (world coordinates R, A, S) that the planes go through; default the middle of the head.
        size: with ``position``, edge in mm of what a PNG shows around the point.
        plane: axial, coronal or sagittal, to draw only this plane in a PNG; default all three.
        overwrite: whether to replace an existing file.
    """
    ending = Path(output).suffix.lower()
    if ending not in (".png", ".html"):
        raise ValueError(
            f"compare: --output is {output}, expected a name that ends in .png, or in .html for a browser."
        )
    if Path(output).exists() and not overwrite:
        raise FileExistsError(
            f"compare: --output {output} is there, maybe of another scan; name another file, or replace it by "
            "--overwrite True."
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
    files = {key: Volume.read(name, f"--{key}", "compare") for key, name in names.items()}
    files["scan"] = place_stack(files["scan"], files["result"], "compare")
    lr, sr = files["scan"], files["result"].order_like(files["scan"])
    is_made_of(sr, lr, "compare")
    found = measure_factors(lr, sr, "compare")
    if hr is not None:
        files["hr"], _ = match_hr(files["hr"], sr, lr, "compare")
    files["result"], affine, shape = sr, sr.affine, sr.voxels.shape
    # A fill value or a hot voxel would compress the scan's grey levels and cause ringing in its interpolation.
    volumes = _replace_extreme_voxels({key: each.voxels for key, each in files.items()})
    zoom = None
    if position is not None:
        point = np.linalg.solve(affine, [*position, 1.0])[:3]
        if not all(-0.5 <= p <= n - 0.5 for p, n in zip(point, shape, strict=True)):
            raise ValueError(
                f"compare: --position {list(position)} mm is outside of {result}, whose voxel there would be "
                f"{point.round(1)}."
            )
        zoom = (point.tolist(), float(size))
    low, high = find_score_range(volumes["scan"])
    scan_affine = lr.affine
    described = sr.find_input(lr) or {}
    if (other := sr.record.get("CubicOf")) and other not in (described.get("Name"), described.get("File")):
        print(f"cubic is here of {scan}; the verdict of {result} compares with cubic of {other}")
    if found is None:  # one of several stacks, or of a grid that was asked for
        place = lr.affine, shape, affine
        baseline = resample_volume(torch.from_numpy(volumes["scan"]), *place).numpy()
        volumes["scan"], scan_affine = sample_nearest(volumes["scan"], *place), affine
    else:
        baseline = interpolate_cubic(volumes["scan"], *found)
    if hr is not None:
        low, high = find_score_range(volumes["hr"])
    arrays = {"scan": volumes["scan"], "cubic": baseline, "SR": volumes["result"]}
    if hr is not None:
        arrays["HR"] = volumes["hr"]
    scaled = {title: (array - low) / (high - low) for title, array in arrays.items()}
    scores = {}
    if hr is not None:
        for title in ("cubic", "SR"):
            pair = [scale_to_range(arrays[each], low, high) for each in (title, "HR")]
            scores[title] = {"psnr": compute_psnr(*pair), "ssim": compute_ssim(*pair)}
            print(f"{title}: PSNR {scores[title]['psnr']:.2f} dB, SSIM {scores[title]['ssim']:.4f}")
    shown = arrays if ending == ".html" else scaled
    drawn = {
        title: nib.Nifti1Image(array, scan_affine if title == "scan" else affine) for title, array in shown.items()
    }
    if ending == ".html":
        truth = None if hr is None else "HR"
        write_viewer(output, drawn, Path(scan).name, truth, position, sr.record or None)
    else:
        planes = [plane] if plane else list(PLANES)
        save_figure(draw_case(drawn, Path(scan).name, scores, zoom, planes), output)
    print(f"Wrote {output}")


def _replace_extreme_voxels(volumes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The volumes ``(X, Y, Z)``, without their extreme voxels.

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
    clean = dict(volumes)
    if scan_extremes is not None:
        clean["scan"] = replace_extremes(scan, scan_extremes)
    for key in volumes.keys() - {"scan"}:
        volume, volume_extremes = volumes[key], find_extremes(volumes[key])
        extreme = (volume <= least) | (volume >= most) | (False if volume_extremes is None else volume_extremes)
        if extreme.any() and not extreme.all():
            clean[key] = replace_extremes(volume, extreme)
    return clean

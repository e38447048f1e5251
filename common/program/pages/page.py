"""One HTML file to look at volumes in a browser: linked planes, one grey window, and a curtain between two of them."""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from nibabel.spatialimages import SpatialImage

from ...io.files import read_sidecar
from ...io.writing import write_atomically
from ...metrics.volume import find_score_range
from ...reports.case import draw_case
from ...transforms.scan.extremes import clean_volume
from .slices import draw_slices

_TEMPLATE = Path(__file__).with_suffix(".html")
_STEPS, _SIGNED_STEPS = 255, 127
_LARGEST, _FAINT = 0.998, 0.5  # quantile of what was added that has the strongest colour; share below which it pales
_EXPLAINED = (
    "A residual says how much a slice differs from what the other slices and stacks foretell for it, as a share of the "
    "stack's brightness: 0.05 is 5 %. Noise alone gives a small one, alike in all slices. Motion within a slice, "
    "lost signal or artefacts make it stand out. Such a slice counts less (orange) or is left out (red). A slice "
    "without a bar shows nothing that can be compared. Motion is by how much the slice's centre moved apart from its "
    "stack. Gain is the slice's brightness relative to its stack."
)
_PACKAGE = "ipyniivue==2.4.4"  # as pyproject.toml and constraints.txt have it


def write_viewer(
    path: str | os.PathLike,
    volumes: Mapping[str, SpatialImage],
    title: str,
    truth: str | None = None,
    position: Sequence[float] | None = None,
    record: Mapping[str, Any] | None = None,
    added: SpatialImage | None = None,
) -> None:
    """Write volumes of one field of view as an HTML file that shows them side by side and needs no network.

    The file includes NiiVue, which draws it. Values are stored in 255 steps, from 0 (or the first volume's minimum if
    it is negative) to its 99.9th percentile, and cut off there. These are the initial ends of the grey window. A part
    that can be opened shows where the volumes differ most (:func:`common.reports.draw_case`).

    Args:
        path: the file to write.
        volumes: 3-D images by name, in the order of display, each on its own grid, in the directions of the first.
        title: of the page.
        truth: name of the volume that is the truth; adds the absolute error of all on its grid, in colours.
        position: point in mm (world coordinates R, A, S) to look at first; without it the middle of the last volume.
        record: what made the result (:func:`read_result_record`); None if it is not known.
        added: signed part of the result that the scan has not measured, on its grid; can be laid over it in colours.
    """
    script, licence = _read_niivue()
    arrays = {name: np.nan_to_num(np.asarray(image.dataobj, dtype=np.float32)) for name, image in volumes.items()}
    affines = {name: np.asarray(image.affine, dtype=np.float64) for name, image in volumes.items()}
    low, high = map(_round_to_header, find_score_range(clean_volume(next(iter(arrays.values())))))
    arrays = {name: array.clip(low, high) for name, array in arrays.items()}
    at = None if position is None else [float(x) for x in position]
    settings: dict[str, Any] = {"window": [low, high], "at": at, "errors": None}
    result = [name for name in volumes if name != truth][-1]
    if truth is not None:
        grid = arrays[truth].shape, affines[truth]
        on_grid = [n for n in arrays if arrays[n].shape == grid[0] and np.allclose(affines[n], grid[1], atol=1e-3)]
        compared = [name for name in on_grid if name != truth]
        # Single voxels must not hide the errors.
        worst = max((float(np.quantile(np.abs(arrays[n] - arrays[truth]), 0.998)) for n in compared), default=0.0)
        settings["errors"] = {"truth": truth, "of": compared, "window": [0, _round_to_header(worst) or high - low]}
    files = {name: _quantise(array, affines[name], low, high) for name, array in arrays.items()}
    overlay = ""
    if added is not None:
        detail = np.asarray(added.dataobj, dtype=np.float32)
        largest = _round_to_header(float(np.quantile(np.abs(detail), _LARGEST))) or high - low
        settings["added"] = {"on": result, "window": [_FAINT * largest, largest]}
        signed = np.rint(detail.clip(-largest, largest) * (_SIGNED_STEPS / largest)).astype(np.int16)
        overlay_image = nib.Nifti1Image(signed, added.affine)
        overlay_image.header.set_slope_inter(largest / _SIGNED_STEPS, 0)
        overlay = _embed("overlay", overlay_image.to_bytes())
    parts = {
        "title": html.escape(title),
        "result": html.escape(result),
        "verdict": html.escape(str((record or {}).get("Verdict") or "")),
        "origin": html.escape(_describe_origin(record)),
        "added": html.escape(_describe_added(record)),
        "warnings": _format_warnings(record),
        "zoom": _format_zoom(arrays, affines, low, high, title),
        "stacks": _format_stacks(record),
        "licence": licence.replace("--", "- -"),  # it is in an HTML comment
        "settings": json.dumps(settings).replace("<", "\\u003c"),
        "volumes": "\n".join(_embed("volume", file, name) for name, file in files.items()) + overlay,
        "niivue": _embed("niivue", script.encode()),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _TEMPLATE.read_text(encoding="utf-8"))
    with write_atomically(path) as temporary:
        # File names may have bytes that are no text.
        temporary.write_text(page, encoding="utf-8", errors="replace")


def read_result_record(path: str | os.PathLike) -> dict[str, Any] | None:
    """What made a result, from the JSON next to its NIfTI: the object SuperResolution; None if there is none.

    A JSON that cannot be read causes a warning.
    """
    metadata, problem = read_sidecar(path)
    if problem is not None:
        warnings.warn(problem, stacklevel=2)
    record = metadata.get("SuperResolution")
    return record if isinstance(record, dict) else None


def check_viewer() -> None:
    """Check before work begins that :func:`write_viewer` finds NiiVue; it raises the same error."""
    _read_niivue()


def _read_niivue() -> tuple[str, str]:
    """NiiVue as a JavaScript module that exports ``Niivue``, and its licence, from the package that brings it."""
    advice = f"it brings NiiVue, which draws the pages; pip install {_PACKAGE}, or this project's extra viewer"
    try:
        package = distribution("ipyniivue")
    except PackageNotFoundError:
        raise ModuleNotFoundError(f"ipyniivue is not installed; {advice}.") from None
    files = {file.name: file.locate() for file in package.files or ()}
    script = Path(files["widget.js"]).read_text(encoding="utf-8") if "widget.js" in files else ""
    # No package exports NiiVue by its name. This finds the class with which the widget makes its first drawing.
    match = re.search(r'"Creating new Niivue instance"\).{0,120}?=new ([\w$]+)\(', script, re.DOTALL)
    *_, end = [None, *re.finditer(r"export\s*\{[\w$]+ as default\}", script)]
    if not (match and end and re.search(rf"(?<![\w$]){re.escape(match[1])}=class\b", script)):
        raise ModuleNotFoundError(f"ipyniivue {package.version} has no NiiVue where {_PACKAGE} has it; {advice}.")
    script = f"{script[: end.start()]}export{{{match[1]} as Niivue}}{script[end.end() :]}"
    return script, Path(files["LICENSE"]).read_text(encoding="utf-8") if "LICENSE" in files else "BSD 2-Clause License"


def _describe_origin(record: Mapping[str, Any] | None) -> str:
    """Bundle and weights in words."""
    if not record:
        return "it is not known which weights made it"
    bundle = " ".join(str(record[key]) for key in ("Bundle", "BundleVersion") if record.get(key))
    weights, adapted = record.get("Weights"), record.get("Adapted")
    facts = [f"made by {bundle}"] if bundle else []
    if isinstance(weights, dict) and weights:
        digest = f" (SHA-256 {str(weights['FileSha256'])[:12]})" if weights.get("FileSha256") else ""
        facts.append(f"weights {weights.get('File')}{digest}")
    else:
        facts.append("no file of weights")
    if isinstance(adapted, dict) and adapted.get("Used"):
        facts.append("fine-tuned on this scan")
    return ", ".join(facts)


def _describe_added(record: Mapping[str, Any] | None) -> str:
    """What was added to the scan, in words; nothing if it is not known."""
    shares = (record or {}).get("Added")
    if not isinstance(shares, dict) or not shares:
        return ""
    if "Unknown" in shares:
        return f"What was added to the scan is not known: {shares['Unknown']}"
    listing = ", ".join(f"{100 * share:.1f} % of {name}" for name, share in shares.items())
    return f"Added to the scan: {listing} tissue."


def _format_warnings(record: Mapping[str, Any] | None) -> str:
    """Format warnings as an element that can be closed, and is if there are only notices; nothing if there are none."""
    counts, items = [], ""
    for grade in ("warning", "notice"):
        texts = (record or {}).get(f"{grade.capitalize()}s")
        if isinstance(texts, (list, tuple)) and texts:
            counts.append(f"{len(texts)} {grade}{'s' * (len(texts) > 1)}")
            items += "".join(f"<li>{grade}: {html.escape(str(text))}</li>" for text in texts)
    if not counts:
        return ""
    is_open = " open" * ("warning" in counts[0])
    summary = f"{' and '.join(counts)} about this result"
    return f'<details id="warnings"{is_open}><summary>{summary}</summary><ul>{items}</ul></details>'


def _format_stacks(record: Mapping[str, Any] | None) -> str:
    """Format what was found about the stacks of an exam, and each of their slices, as an element that can be opened."""
    adapted = (record or {}).get("Adapted")
    report = (
        {name: stack for name, stack in adapted.items() if isinstance(stack, dict)} if isinstance(adapted, dict) else {}
    )
    if (figure := draw_slices(report)) is None:
        return ""
    left_out = [f"{Path(name).name}: {stack['LeftOut']}" for name, stack in report.items() if "LeftOut" in stack]
    items = "".join(f"<li>left out: {html.escape(text)}</li>" for text in left_out)
    return (
        f'<details id="stacks"><summary>slices of the stacks</summary><p>{_EXPLAINED}</p><ul>{items}</ul>'
        f"{_embed_figure(figure, 'residual, motion and gain of each slice')}</details>"
    )


def _format_zoom(
    arrays: Mapping[str, np.ndarray], affines: Mapping[str, np.ndarray], low: float, high: float, title: str
) -> str:
    """Format planes, a zoom where the volumes differ most and a profile as an element that can be opened."""
    images = {n: nib.Nifti1Image((array - low) / (high - low), affines[n]) for n, array in arrays.items()}
    picture = _embed_figure(draw_case(images, title, {}), "planes, a zoom of 4 into one, and a profile through it")
    return f'<details id="zoom"><summary>where the result differs most</summary>{picture}</details>'


def _embed_figure(figure: Figure, description: str) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    encoded = base64.b64encode(picture.getvalue()).decode("ascii")
    return f'<img alt="{description}" src="data:image/png;base64,{encoded}">'


def _round_to_header(value: float) -> float:
    """As a NIfTI header holds it."""
    return float(np.float32(value))


def _quantise(array: np.ndarray, affine: np.ndarray, low: float, high: float) -> bytes:
    """A volume as a NIfTI of bytes, whose header scales them back and has the window."""
    step = (high - low) / _STEPS
    # Its sform counts: a qform holds no shear.
    image = nib.Nifti1Image(np.rint((array - low) / step).astype(np.uint8), affine)
    image.header.set_slope_inter(step, low)
    image.header["cal_min"], image.header["cal_max"] = low, high
    image.header.set_xyzt_units("mm")
    return image.to_bytes()


def _embed(kind: str, content: bytes, name: str = "") -> str:
    """Pack content as an element that browsers do not run as a script."""
    packed = base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")
    return f'<script type="application/gzip" class="{kind}" data-name="{html.escape(name)}">{packed}</script>'

"""Whether slices of a DICOM series are missing, by all that its headers say about how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from pydicom import Dataset

from ...runtime.errors import Notice
from .kinds import read_private_number
from .parts import number_alike
from .tags import format_values, get_number, get_numbers, get_values, get_words, name_image

# Private tags with the number of slices of a volume.
_PRIVATE = {
    "Philips' (2001,1018)": (0x2001, 0x18, "Philips Imaging DD 001"),
    "GE's (0021,104F)": (0x0021, 0x4F, "GEMS_RELA_01"),
}
_EXPORT = "export the whole series. If slices were left out on purpose, convert it to NIfTI with dcm2niix."

Place = tuple[object, ...]
Finding = ValueError | UserWarning
Fault = tuple[type[Finding], str]


def check_concatenations(headers: Sequence[Dataset]) -> None:
    """Refuse a concatenation of which files are missing, which may be the first or last slices.

    Args:
        headers: headers of all images of a series, with those of copies.

    Raises:
        ValueError: when files are missing by the numbers of files or frames; the message names one of them.
    """
    concatenations: dict[str, dict[float | str, Dataset]] = {}
    for header in headers:
        if get_values(header, "ConcatenationUID"):
            number = get_number(header, "InConcatenationNumber") or header.filename
            concatenations.setdefault(format_values(header, "ConcatenationUID"), {})[number] = header
    frames = Counter(name for name, _ in {(header.filename, getattr(header, "frame", 0)) for header in headers})
    for files in concatenations.values():
        total = max(_get_count(header, "InConcatenationTotalNumber") for header in files.values())
        last = max((number for number in files if isinstance(number, float)), default=0)
        if len(files) < max(total, last):
            tag = "InConcatenationTotalNumber" if total >= last else "InConcatenationNumber"
            raise ValueError(
                f"{next(iter(files.values())).filename}: one of {max(total, last):g} files of a concatenation ({tag}), "
                f"but only {len(files)} are here; export the whole series."
            )
        offsets = {number: get_number(header, "ConcatenationFrameOffsetNumber") for number, header in files.items()}
        end = offsets.get(1) or 0.0  # some count frames from 1
        for number, offset in sorted(offsets.items(), key=lambda item: item[1] or 0):
            file = files[number].filename
            if offset is not None and offset > end:
                raise ValueError(
                    f"{file}: the first of its frames is number {offset + 1:g} of a concatenation "
                    f"(ConcatenationFrameOffsetNumber), but the files before it have {end:g} frames; export the whole "
                    "series."
                )
            end = max(end, (offset or 0) + frames[file])


def find_missing_slices(parts: Sequence[Sequence[Dataset]], files: int) -> list[list[Finding]]:
    """Find what each part of a series lacks, by its other parts and by all numbers in its headers.

    Args:
        parts: headers of the images of each part, without copies.
        files: number of different files with the SeriesInstanceUID, also of those that are no images.

    Returns:
        For each part an error if slices are certainly missing. Else warnings, or notices where complete series may
        look so: a number may count several volumes, or be that of the images' source.
    """

    def make(fault: Fault) -> Finding:
        kind, text = fault
        advice = "" if kind is ValueError else "if images are missing, "
        return kind(f"series {parts[0][0].SeriesInstanceUID}: {text}; {advice}{_EXPORT}")

    places = _list_places(parts)
    examples = {place: header for own in places for place, header in own.items()}
    counts = Counter(map(frozenset, places))
    lacking = {own: _compare(own, counts) for own in counts}
    images = sum(map(len, parts)) + sum(len(lacking[own][0]) * number for own, number in counts.items())
    lowest = min(_get_count(header, "InstanceNumber") for part in parts for header in part)
    found: list[list[Finding]] = []
    for part, own in zip(parts, map(frozenset, places), strict=True):
        missing, is_certain = lacking[own]
        kind = ValueError if is_certain else UserWarning
        text = f"{len(missing)} of {len(own | missing)} slices are missing, which other volumes of the series have"
        faults = [(kind, f"{text}, such as {name_image(examples[min(missing)])}")] if missing else []
        found.append(
            [*map(make, faults or _check_numbers(part, len(parts) == 1, len(examples) or len(part), images, lowest))]
        )
    complete = [i for i, own in enumerate(places) if not lacking[frozenset(own)][0]] or [len(parts) - 1]
    found[complete[-1]] += map(make, _check_series(parts, files, images))
    return found


def _list_places(parts: Sequence[Sequence[Dataset]]) -> list[dict[Place, Dataset]]:
    """The images of each part whose place is known, by numbers that are equal for images at one place."""
    known = [(i, header, at) for i, part in enumerate(parts) for header in part if (at := _get_position(header))]
    axes = [number_alike(axis) for axis in zip(*(at for *_, at in known), strict=True)]
    places: list[dict[Place, Dataset]] = [{} for _ in parts]
    for (i, header, _), place in zip(known, zip(*axes, strict=True), strict=True):
        key = (format_values(header, "StackID"), *place)
        places[i][key] = header
    return places


def _get_position(header: Dataset) -> list[float]:
    try:
        return get_numbers(header, "ImagePositionPatient", 3)
    except ValueError:
        return []


def _compare(own: frozenset[Place], counts: Mapping[frozenset[Place], int]) -> tuple[frozenset[Place], bool]:
    """Places that a part lacks and volumes of the same place have; and whether at least half of these have one."""
    votes: Counter[Place] = Counter()
    volumes = 0
    for other, number in counts.items():
        if 2 * len(own & other) >= max(1, min(len(own), len(other))):
            volumes += number
            votes.update(dict.fromkeys(other, number))
    missing = frozenset(votes) - own
    return missing, any(2 * votes[place] >= volumes for place in missing)


def _check_numbers(part: Sequence[Dataset], is_only: bool, slices: int, images: int, lowest: float) -> Iterator[Fault]:
    """Compare the images of a part with the numbers in its headers.

    Args:
        part: headers of its images.
        is_only: whether it is the only part of the series.
        slices: number of different places in the series.
        images: number of images in the series, with those that a part lacks beside others.
        lowest: InstanceNumber in the series.
    """
    header, number = part[0], len(part)
    # Reformatted and resampled images often keep the numbers of their source.
    certain = Notice if "DERIVED" in get_words(header, "ImageType") else ValueError
    stated = {"NumberOfSlices": _get_count(header, "NumberOfSlices")}
    stated |= {name: read_private_number(header, *tag) or 0 for name, tag in _PRIVATE.items()}
    if slices in stated.values():
        return
    for name, count in stated.items():
        if count > slices:
            kind = UserWarning if certain is ValueError and name.startswith("GE") else certain
            yield kind, f"{slices} slices are here, but {name} says {count:g}"
            return
    # It counts the images of a volume, of some of its echoes or time points, or of the series.
    count = _get_count(header, "ImagesInAcquisition")
    text = f"are here, but ImagesInAcquisition says {count:g}"
    if count > images:
        unsure = Notice if count % number == 0 else UserWarning
        yield (certain if count % number and is_only else unsure), f"{images} images {text}"
    elif images > count > number and count % number and count % slices:
        yield UserWarning, f"{number} slices of the volume {text}"
    if count >= number:
        return
    # Numbers begin at 0 or 1 in each series or stack, or a little further on if images of several volumes alternate.
    numbers = sorted({_get_count(image, "InstanceNumber") for image in part})
    first, step = numbers[0], min((after - before for before, after in pairwise(numbers)), default=1)
    is_frame = hasattr(header, "frame")  # each stack of frames has numbers of its own
    if len(numbers) == number and first > max(1, step) and (is_frame or first == lowest):
        # They may go on from an earlier volume.
        kind = Notice if first % number in (0, 1) else UserWarning
        tag = "InStackPositionNumber" if is_frame else "InstanceNumber"
        yield kind, f"{tag} begins at {first:g} and not at 1, so the first slices may be missing"


def _check_series(parts: Sequence[Sequence[Dataset]], files: int, images: int) -> Iterator[Fault]:
    """Compare the whole series with the numbers in its headers."""
    header = parts[-1][-1]
    lacks = images - sum(map(len, parts))
    expected = {"NumberOfSeriesRelatedInstances": files + lacks, "ImagesInSeries": max(files + lacks, images)}
    for tag, here in expected.items():
        if (count := _get_count(header, tag)) > here:
            yield UserWarning, f"{files} files are here, but {tag} says {count:g}"
    if get_values(header, "ConcatenationUID") and not _get_count(header, "InConcatenationTotalNumber"):
        yield Notice, "the concatenation has no InConcatenationTotalNumber, so its last files may be missing"
    times = {format_values(image, "TemporalPositionIdentifier") for part in parts for image in part}
    here = len(times) if len(times) > 1 else len(parts)
    count = _get_count(header, "NumberOfTemporalPositions")
    if 1 < here < count:
        yield Notice, f"{here} time points are here, but NumberOfTemporalPositions says {count:g}"


def _get_count(header: Dataset, keyword: str) -> float:
    """A number of images or of an image; 0 if the header has none."""
    return get_number(header, keyword) or 0.0

"""The reader's page against its key, and ratings of readers whose minds are known, through the command."""

import base64
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from common.__main__ import main
from common.metrics.kappa import compute_wilson_interval

from ..refused import refused
from .test_scores import make_person, read, save

QUESTIONS = ("sharper", "preferred", "wrong")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two persons: the interpolation, a result with a bright sheet at one place, and one with noise."""
    folder = tmp_path_factory.mktemp("study")
    lines = []
    for seed in (0, 1):
        files = make_person(folder, seed)
        voxels = nib.load(files["hr"]).get_fdata()
        voxels[8, 4:18, 2:22] += 0.3 * (voxels[8, 4:18, 2:22] > 0)
        files["sheet"] = save(folder / f"secret_b{seed}_sr.nii.gz", voxels)
        lines.append(f"anna{seed},{Path(files['sheet']).name};a{seed}_sr.nii.gz,scan{seed}.nii.gz\n")
    (folder / "cases.csv").write_text("person,results,scan\n" + "".join(lines))
    main(["judge", "--cases", str(folder / "cases.csv"), "--readers", "true", "--output_dir", str(folder / "o")])
    return folder


def load_page(folder: Path) -> tuple[str, dict]:
    text = (folder / "o" / "readers.html").read_text()
    return text, json.loads(re.search(r'id="study">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_shows_what_the_key_says(study):
    """Planes are at their places, in one window; what differs most is shown."""
    _, content = load_page(study)
    key = read(study / "o" / "readers_key.csv")
    assert [pair["pair"] for pair in content["pairs"]] == [int(line["pair"]) for line in key]
    methods = Counter(line[side] for line in key for side in ("left", "right"))
    assert {*methods} == {"cubic", "result 1", "result 2"}
    for pair, line in zip(content["pairs"], key, strict=True):
        for side in ("left", "right"):
            if line[side] == "cubic":
                continue
            picture = content["pictures"][pair[side]]
            pixels = imread(io.BytesIO(base64.b64decode(picture["png"])))[..., 0]
            assert pixels.min() < 0.02  # air is black, though the interpolation undershoots
            image = nib.as_closest_canonical(nib.load(line[f"{side}_file"]))
            axis = {"sagittal": 0, "coronal": 1, "axial": 2}[line["plane"]]
            index = round((float(line["millimetres"]) - image.affine[axis, 3]) / image.affine[axis, axis])
            plane = image.get_fdata().take(index, axis)
            # Their box is found by brightness, so the plane is searched for what the picture has.
            height, width = pixels.shape
            shown = np.rot90(plane)[:, ::-1]
            places = [(i, j) for i in range(shown.shape[0] - height + 1) for j in range(shown.shape[1] - width + 1)]
            best = max(
                np.corrcoef(pixels.ravel(), shown[i : i + height, j : j + width].ravel())[0, 1] for i, j in places
            )
            assert best > 0.99, line
            spacing = np.delete(nib.affines.voxel_sizes(image.affine), axis)
            assert picture["ratio"] == pytest.approx(width * spacing[0] / (height * spacing[1]), rel=1e-3)
    # Stored index 8 along the first axis, which lies along A.
    at = nib.affines.apply_affine(nib.load(study / "hr0.nii.gz").affine, [8, 0, 0])[1]
    found = [
        float(line["millimetres"])
        for line in key
        if {line["left"], line["right"]} == {"cubic", "result 1"} and line["plane"] == "coronal"
    ]
    assert sum(abs(place - at) < 0.2 for place in found) >= 2  # of each person, at least once


def test_the_page_is_blind(study):
    """No name stands in it; sides are balanced; a pair that comes again has its sides swapped."""
    text, content = load_page(study)
    for picture in content["pictures"]:
        text = text.replace(picture["png"], "")
    for name in ("anna", "secret", "cubic", "result 1", "_sr", "hr0"):
        assert name not in text
    key = read(study / "o" / "readers_key.csv")
    once = [line for line in key if not line["repeats"]]
    again = [line for line in key if line["repeats"]]
    assert (len(once), len(again)) == (36, 8)
    swapped = sum(line["left"] > line["right"] for line in once)
    assert swapped == 18
    numbers = {int(line["pair"]): (line, pair) for line, pair in zip(key, content["pairs"], strict=True)}
    for line in again:
        first, second = numbers[int(line["repeats"])], numbers[int(line["pair"])]
        assert (first[0]["left"], first[0]["right"]) == (second[0]["right"], second[0]["left"])
        assert (first[1]["left"], first[1]["right"]) == (second[1]["right"], second[1]["left"])
        assert int(line["pair"]) - int(line["repeats"]) >= 18
    assert [line["person"] for line in key] != sorted(line["person"] for line in key)
    # The left picture is not the one with the lower number.
    lower = [pair["left"] < pair["right"] for pair in content["pairs"]]
    assert 10 < sum(lower) < 34


def rate(study: Path, name: str, mind) -> str:
    """Save ratings of a reader: a mind takes a line of the key and a question, and answers."""
    key = read(study / "o" / "readers_key.csv")
    file = study / f"{name}.csv"
    with file.open("w", newline="") as table:
        writer = csv.writer(table, quoting=csv.QUOTE_ALL)
        writer.writerow(["study", "reader", "pair", "question", "answer"])
        for line in key:
            for question in QUESTIONS:
                if answer := mind(line, question):
                    writer.writerow([line["study"], name, line["pair"], question, answer])
    return str(file)


def prefer(order: dict[str, int], line: dict[str, str], question: str) -> str:
    better = order[line["left"]] > order[line["right"]]
    if question == "wrong":
        return "right" if better else "left"
    return ("left" if better else "right") + (", clearly" if question == "sharper" else "")


def open_key(study: Path, *files: str, output: str = "rated") -> tuple[list[dict], list[dict]]:
    words = ["--ratings", ",".join(files), "--key", str(study / "o" / "readers_key.csv")]
    main(["judge", *words, "--output_dir", str(study / output), "--overwrite"])
    return read(study / output / "preferences.csv"), read(study / output / "agreement.csv")


def test_readers_who_know_what_they_like(study):
    """A liking is found whatever the side; who likes the opposite disagrees; persons are the units."""
    order = {"cubic": 0, "result 1": 2, "result 2": 1}
    one = rate(study, "one", lambda line, question: prefer(order, line, question))
    two = rate(study, "two", lambda line, question: prefer(order, line, question))
    preferences, agreement = open_key(study, one, two)
    low, high = compute_wilson_interval(1, 2)
    for row in preferences:
        better = max(row["first"], row["second"], key=order.get)
        worse = min(row["first"], row["second"], key=order.get)
        is_all = row["answer"] == (worse if row["question"] == "wrong" else better)
        assert float(row["percent"]) == 100 * is_all and (row["persons"], row["ratings"]) == ("2", "24")
        if is_all:
            assert (float(row["from"]), float(row["to"])) == pytest.approx((100 * low, 100 * high), rel=1e-3)
    assert {float(row["kappa"]) for row in agreement} == {1}
    assert [int(row["pairs"]) for row in agreement] == [36, 8, 8] * 3
    opposite = rate(study, "three", lambda line, question: prefer({k: -v for k, v in order.items()}, line, question))
    preferences, agreement = open_key(study, one, two, opposite)
    assert {row["percent"] for row in preferences} == {"0", "33.33", "66.67"}
    by_readers = {row["readers"]: float(row["kappa"]) for row in agreement if row["question"] == "sharper"}
    assert by_readers["one and two"] == by_readers["three again"] == 1 > 0 > by_readers["one and three"]
    # All pairs are split 2 to 1: by hand from Fleiss' formula, with 36 pairs of which 12 are turned the other way.
    first = (24 * 1 + 12 * 2) / 108
    chance = first**2 + (1 - first) ** 2
    assert by_readers["all"] == pytest.approx((1 / 3 - chance) / (1 - chance), rel=1e-3)


def test_a_reader_who_looks_at_one_side(study):
    """He prefers nothing, and contradicts himself on pairs that come again. What he leaves out does not count."""

    def say_left(line, question):
        return None if question == "preferred" else "left"

    preferences, agreement = open_key(study, rate(study, "left", say_left))
    assert {row["question"] for row in preferences} == {"sharper", "wrong"}
    shares = Counter()
    for row in preferences:
        shares["one" if row["answer"] in (row["first"], row["second"]) else "other"] += float(row["percent"])
    assert shares["other"] == 0 and shares["one"] == pytest.approx(600, abs=0.2)
    again = {row["question"]: row for row in agreement}
    assert float(again["sharper"]["kappa"]) <= 0 and float(again["wrong"]["same_answer"]) == 0
    assert again["preferred"]["kappa"] == "" and again["preferred"]["pairs"] == "0"


def test_refused_ratings(study, tmp_path):
    good = rate(study, "good", lambda line, question: "left")
    text = Path(good).read_text()
    name = text.splitlines()[1].split(",")[0]
    for change, words in (
        ((name, '"other"'), ["other", "the key is of"]),
        (('"sharper","left"', '"sharper","up"'), ["line 2", "up"]),
        (('"wrong"', '"colour"'), ["line 4", "colour"]),
        (('"answer"', '"said"'), ["expected the columns", "said"]),
    ):
        bad = tmp_path / "bad.csv"
        bad.write_text(text.replace(*change))
        refused(lambda bad=bad: open_key(study, str(bad), output="none"), SystemExit, "--ratings", bad, *words)
    refused(lambda: open_key(study, good, good, output="none"), SystemExit, "good", "a file before it")
    refused(lambda: open_key(study, "absent.csv", output="none"), SystemExit, "absent.csv", "no such file")
    for words in (["--ratings", good], ["--key", good], ["x.nii", "--ratings", good, "--key", good]):
        refused(lambda words=words: main(["judge", *words, "--output_dir", str(tmp_path / "o")]), SystemExit, "--key")
    assert not (study / "none").exists() and not (tmp_path / "o").exists()


def test_refused_pairs(tmp_path):
    files = make_person(tmp_path, 0)
    voxels = nib.load(files["hr"]).get_fdata()
    bright, other = save(tmp_path / "bright.nii.gz", 9 * voxels), save(tmp_path / "other.nii.gz", voxels[:-1])
    for results, words in (
        ([files["result"]], ["two methods", "--scan"]),
        ([files["result"], bright], ["bright.nii.gz", "same units"]),
        ([files["result"], other], ["other.nii.gz", "different grids"]),
    ):
        command = ["judge", *results, "--readers", "true", "--output_dir", str(tmp_path / "o")]
        refused(lambda command=command: main(command), SystemExit, "--readers", *words)
    assert not (tmp_path / "o").exists()

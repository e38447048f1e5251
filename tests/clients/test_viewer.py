"""Pages in a real Chromium (Debian's, by playwright, WebGL in software): they draw, scroll together, ask no network."""

import io
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread
from nibabel.orientations import io_orientation
from playwright.sync_api import Locator, Page, sync_playwright
from skimage.registration import phase_cross_correlation

from common.degradations import KSpaceTruncation
from common.metrics import interpolate_cubic
from common.program.pages.page import write_viewer

from ..bundles import runs
from ..pages import Page as Written

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
DEGRADATION = KSpaceTruncation((2, 2, 2))  # whose LR and HR grids have different corners
# Each of these is the same head, stored otherwise.
STORED = {"HR": "RAS", "mirrored": "LPS", "permuted": "SRA"}
GREY = ["scan", "cubic", *STORED]
ERROR = "|cubic − HR|"
AT = runs.apply_affine(runs.OBLIQUE, [24, 20, 14])  # on a voxel's centre in both grids
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}
EVIL = "<script>document.title = 'changed'</script><img src=x onerror=\"document.title = 'changed'\">"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    hr = runs.phantom(3)
    lr, affine = runs.degrade(hr, runs.OBLIQUE, DEGRADATION)
    images = {
        "scan": nib.Nifti1Image(lr.astype(np.float32), affine),
        "cubic": nib.Nifti1Image(interpolate_cubic(lr, DEGRADATION.factors, DEGRADATION.offset), runs.OBLIQUE),
    }
    for name, axes in STORED.items():
        images[name] = nib.load(runs.save(folder / f"{name}.nii", hr, runs.OBLIQUE, axes=axes))
    added = 50 * np.sign(np.arange(hr.shape[0]) - hr.shape[0] / 2 + 0.5)[:, None, None] * np.ones(hr.shape)
    overlay = nib.Nifti1Image(added, runs.OBLIQUE)  # adds on the right, removes on the left
    record = {"Bundle": EVIL, "Warnings": [EVIL]}
    write_viewer(folder / "look.html", images, "a head", truth="HR", position=AT, record=record, added=overlay)
    return folder / "look.html"


@pytest.fixture
def page(page_file):
    """The page, opened as by a double click; what it says and asks for is recorded, and must be nothing."""
    said = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 800})
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(page_file.as_uri())
        page.wait_for_selector("body[data-ready]", timeout=120_000)
        yield page
        browser.close()
    asked = [line for line in said if not line.startswith(("blob:", "data:")) and line != page_file.as_uri()]
    assert asked == []


def panel(page: Page, name: str) -> Locator:
    return page.locator(f'figure[data-name="{name}"] canvas')


def drawn(page: Page, name: str) -> np.ndarray:
    """What is drawn of a volume, (rows, columns, 3) from 0 to 1, without its edges and what is written over it."""
    settle(page)
    return imread(io.BytesIO(panel(page, name).screenshot(style=".tile { visibility: hidden }")))[25:-25, 25:-25, :3]


def written(page: Page, name: str, plane: str, part: str) -> str:
    return page.inner_text(f'figure[data-name="{name}"] .tile.{plane} .{part}')


def settle(page: Page) -> None:
    """Wait until the browser has drawn what it was told."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def position(page: Page) -> np.ndarray:
    return np.array(page.inner_text("#status").split()[1:6:2], float)


def colourful(picture: np.ndarray) -> float:
    return float((np.ptp(picture, axis=-1) > 0.05).mean())


def show(page: Page, plane: str) -> None:
    page.select_option("#planes", label=plane)
    page.set_checked("#cross", False)
    page.set_checked("#smooth", True)


def test_it_draws_and_scrolls_all_together(page):
    assert page.title() == "a head"
    np.testing.assert_allclose(position(page), AT, atol=0.06)
    for plane, axis in AXES.items():
        show(page, plane)
        before, start = {name: drawn(page, name) for name in (*GREY, ERROR)}, position(page)
        for name, picture in before.items():
            assert picture.std() > 0.02, f"{name} is blank"
            assert (colourful(picture) > 0.1) == (name == ERROR), name
        panel(page, "cubic").hover()
        for _ in range(4):
            page.mouse.wheel(0, 100)
        after = {name: drawn(page, name) for name in before}
        moved = position(page) - start
        along = runs.OBLIQUE[:3, axis]
        np.testing.assert_allclose(np.abs(moved @ along) / (along @ along), 4, atol=0.1)
        assert np.linalg.norm(np.cross(moved, along)) < 0.2 * np.linalg.norm(along)
        for name, picture in after.items():
            assert np.abs(picture - before[name]).mean() > 0.003, f"{name} did not move"


def test_all_volumes_are_in_one_place(page):
    for zoomed in (False, True):
        if zoomed:
            panel(page, "mirrored").hover()
            page.keyboard.down("Control")
            for _ in range(6):
                page.mouse.wheel(0, -100)
            page.keyboard.up("Control")
            page.keyboard.down("Shift")
            page.mouse.down()
            page.mouse.move(300, 300, steps=4)
            page.mouse.up()
            page.keyboard.up("Shift")
        for plane in AXES:
            show(page, plane)
            coloured = {name: drawn(page, name) for name in GREY}
            assert max(map(colourful, coloured.values())) == 0
            pictures = {name: picture[..., 0] for name, picture in coloured.items()}
            for name in STORED:
                np.testing.assert_allclose(pictures[name], pictures["HR"], atol=0.06, err_msg=f"{plane} of {name}")
            for name in ("scan", "cubic"):
                shift = phase_cross_correlation(pictures["HR"], pictures[name], upsample_factor=10)[0]
                # An HR voxel is several pixels.
                assert np.abs(shift).max() <= 1, (plane, zoomed, name, shift)


def test_what_was_added(page):
    """It lies over the result when it is asked for, warm where it adds; the patient's right is on the left."""
    show(page, "axial")
    assert colourful(drawn(page, "permuted")) == 0
    page.check("#added")
    picture = drawn(page, "permuted")
    left, right = np.array_split(picture[..., 0] - picture[..., 2], 2, axis=1)
    middle = slice(len(left) // 3, -len(left) // 3)
    assert left[middle].mean() > 0.1 and right[middle].mean() < -0.1 and colourful(drawn(page, "cubic")) == 0
    page.uncheck("#added")
    assert colourful(drawn(page, "permuted")) == 0


def test_window(page):
    """The numbers and a right drag change all grey volumes, and those alone; reset puts all back."""
    show(page, "axial")
    names = ("scan", "HR", ERROR)

    def changed(change):
        before = [drawn(page, name).mean() for name in names]
        change()
        return np.array([drawn(page, name).mean() for name in names]) - before

    def drag():
        box = panel(page, "cubic").bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 300)
        page.mouse.down(button="right")
        page.mouse.move(box["x"] + 180, box["y"] + 300, steps=3)
        settle(page)
        page.mouse.up(button="right")

    high = float(page.input_value("#high"))
    brighter = changed(lambda: (page.fill("#high", str(high / 3)), page.press("#high", "Enter")))
    assert brighter[:2].min() > 0.05 and abs(brighter[2]) < 1e-3
    darker = changed(lambda: page.click("#reset"))
    np.testing.assert_allclose(darker, -brighter, atol=1e-3)
    assert float(page.input_value("#high")) == high
    wider = changed(drag)
    assert np.abs(wider[:2]).min() > 0.01 and abs(wider[2]) < 1e-3 and float(page.input_value("#high")) > 1.1 * high


def test_what_is_written(page, page_file):
    """Slice numbers are those of the voxel whose value is shown; positions are in the world; text is only text."""
    page.set_viewport_size({"width": 900, "height": 500})
    for name, image in Written(page_file).volumes.items():
        stored = io_orientation(image.affine)[:, 0].astype(int).tolist()  # the world's axis of each stored one
        index = np.zeros(3, int)
        for plane, axis in AXES.items():
            slice_number, slices = map(int, written(page, name, plane, "slice").split(" of "))
            index[stored.index(axis)] = slice_number - 1
            assert slices == image.shape[stored.index(axis)]
            assert written(page, name, plane, "position") == f"{'RAS'[axis]} {AT[axis]:.1f} mm"
        np.testing.assert_allclose(runs.apply_affine(image.affine, index), AT, atol=0.01)
        value = float(page.inner_text(f'figure[data-name="{name}"] output'))
        assert value == pytest.approx(image.dataobj[tuple(index)], rel=1e-3)
    assert page.title() == "a head" and EVIL in page.inner_text("#about")
    assert page.inner_text("#warnings li") == f"warning: {EVIL}"
    box = page.get_by_text("Research only. Not for diagnosis.").bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 500 and box["x"] + box["width"] <= 900


def test_scale_bar(page):
    """A bar is as long as it says, across and down, however large the picture is drawn."""
    names = ("scan", "permuted")
    for other in {*GREY, ERROR} - {*names}:
        page.uncheck(f'input[value="{other}"]')
    lengths = set()
    for _ in range(2):
        for name, plane in [(name, plane) for name in names for plane in AXES]:
            page.select_option("#planes", label=plane)
            settle(page)
            tile = page.locator(f'figure[data-name="{name}"] .tile.{plane}')
            mm, pixels = float(written(page, name, plane, "scale").split()[0]), tile.locator(".scale").bounding_box()
            pixels, (left, top, width, height) = pixels["width"], tile.bounding_box().values()
            lengths.add(mm)
            x, y = round(left + width / 3), round(top + height / 3)
            places = []
            for across, down in ((0, 0), (pixels, 0), (0, pixels)):
                page.mouse.click(round(x + across), round(y + down))
                places.append(position(page))
            for place in places[1:]:
                assert np.linalg.norm(place - places[0]) == pytest.approx(mm, abs=1.5 * mm / pixels), (name, plane)
        page.click("#reset")
        for _ in range(9):
            page.keyboard.press("+")
    assert len(lengths) > 1


@pytest.mark.parametrize("planes", ["all", "axial"])
def test_curtain(page, planes):
    """In each plane, left of its handle is one volume and right of it another, at the same place."""
    show(page, planes)
    page.set_checked("#curtain", True)
    page.select_option("#left", "HR")
    page.select_option("#right", ERROR)
    settle(page)
    tiles = page.locator(".right .tile:visible")
    assert tiles.count() == (3 if planes == "all" else 1)

    def seen():
        settle(page)
        hidden = ".tile > :not(.handle) { visibility: hidden }"
        return [imread(io.BytesIO(tile.screenshot(style=hidden)))[:, 20:-20, :3] for tile in tiles.all()]

    def handle_to(share):
        box, area = tiles.last.locator(".handle").bounding_box(), tiles.last.bounding_box()
        page.mouse.move(box["x"] + 8, box["y"] + 200)
        page.mouse.down()
        page.mouse.move(area["x"] + share * area["width"], box["y"] + 200, steps=3)
        page.mouse.up()
        return seen()

    for middle, truth, error in zip(handle_to(0.5), handle_to(0.99), handle_to(0.01), strict=True):
        half = middle.shape[1] // 2
        assert colourful(middle[:, : half - 20]) < 0.01 < 0.1 < colourful(middle[:, half + 20 :])
        assert colourful(truth[:, :-20]) < 0.01
        np.testing.assert_array_equal(middle[:, : half - 20], truth[:, : half - 20])
        np.testing.assert_array_equal(middle[:, half + 20 :], error[:, half + 20 :])

"""The reader's page in a real Chromium: keys, what is kept and what is saved, with no request to any network."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, sync_playwright

from common.reports.reader_page import QUESTIONS, Pair, encode_picture, write_reader_page

NAME = 'Ada "the first", MD'


@pytest.fixture
def page(tmp_path):
    """A page of three pairs, whose pictures are wide and tall, opened as by a double click."""
    pictures = [encode_picture(np.full((8, 4 + 4 * i)[:: 1 if i else -1], 0.2 * i), (1, 2), (0, 1)) for i in range(4)]
    pairs = [Pair(1, "axial", 0, 1), Pair(2, "coronal", 3, 2), Pair(3, "axial", 1, 0)]
    write_reader_page(tmp_path / "readers.html", "0123", pairs, pictures)
    said = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 700})
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto((tmp_path / "readers.html").as_uri())
        yield page
        browser.close()
    assert [line for line in said if not line.startswith(("blob:", "data:", "file:"))] == []


def begin(page: Page, name: str = NAME) -> None:
    page.fill("#reader", name)
    page.keyboard.press("Enter")


def save(page: Page) -> tuple[str, list[dict[str, str]]]:
    with page.expect_download() as download:
        page.click("#save")
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return download.value.suggested_filename, list(csv.DictReader(io.StringIO(text)))


def test_answers_by_keys_are_kept_and_saved(page):
    begin(page)
    for key in "152":
        page.keyboard.press(key)
    assert page.inner_text("#where") == "pair 2 of 3, coronal; 1 done"
    page.keyboard.press("5")
    page.keyboard.press("9")  # no answer
    page.keyboard.press("ArrowLeft")
    page.click("text=right, clearly >> nth=0")  # another mind about the first question
    page.reload()
    assert page.input_value("#reader") == NAME
    begin(page)
    assert page.inner_text("#where") == "pair 2 of 3, coronal; 1 done"
    name, lines = save(page)
    assert name == "ratings_Ada_the_first_MD.csv"
    answers = [question.answers for question in QUESTIONS]
    given = [("1", answers[0][4]), ("1", answers[1][4]), ("1", answers[2][1]), ("2", answers[0][4])]
    assert [(line["pair"], line["answer"]) for line in lines] == given
    assert {(line["study"], line["reader"]) for line in lines} == {("0123", NAME)}
    # Another reader on this computer begins anew.
    page.reload()
    begin(page, "Bob")
    assert page.inner_text("#where") == "pair 1 of 3, axial; 0 done"
    for _ in range(3):
        for key in "334":
            page.keyboard.press(key)
    assert "All are rated" in page.inner_text("#problem")
    assert len(save(page)[1]) == 9


def test_both_pictures_are_whole_and_zoom_together(page):
    begin(page)
    pairs = page.evaluate("study.pairs")
    for pair in pairs:
        for side in ("left", "right"):
            page.wait_for_function(f"byId('{side}').complete")
            image, frame = page.locator(f"#{side}"), page.locator(f"figure:has(#{side})")
            box, around = image.bounding_box(), frame.bounding_box()
            ratio = page.evaluate("study.pictures")[pair[side]]["ratio"]
            assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.01)
            assert box["width"] <= around["width"] + 1 and box["height"] <= around["height"] + 1
            assert max(box["width"] / around["width"], box["height"] / around["height"]) > 0.99
        page.keyboard.press("ArrowRight")
    before = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
    page.mouse.move(before[0]["x"] + 50, before[0]["y"] + 60)
    page.mouse.wheel(0, -400)
    page.wait_for_function("view.zoom > 2")
    after = [page.locator(f"#{side}").bounding_box() for side in ("left", "right")]
    for old, new in zip(before, after, strict=True):
        assert new["width"] / old["width"] == pytest.approx(np.e, rel=0.01)
    # What is under the mouse stays there.
    assert (before[0]["x"] + 50 - after[0]["x"]) / after[0]["width"] == pytest.approx(50 / before[0]["width"], abs=0.01)

"""What is in the pages that common.reports.viewer writes."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib


class Page(HTMLParser):
    """A page, read as a browser does.

    Attributes:
        text: all of it.
        title: of the page.
        volumes: images by name, in their order.
        settings: what its script begins with.
        niivue: the JavaScript that draws it.
        loaded: addresses that its elements would load.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.text = Path(path).read_text(encoding="utf-8")
        self.title, self.volumes, self.settings, self.niivue, self.loaded = "", {}, None, "", []
        self.element, self.given = "", {}
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        self.element, self.given = tag, dict(attrs)
        self.loaded += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        kind = self.given.get("class")
        if self.element == "title":
            self.title += data
        elif self.given.get("id") == "settings":
            self.settings = json.loads(data)
        elif kind == "volume":
            self.volumes[self.given["data-name"]] = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))
        elif kind == "niivue":
            self.niivue = gzip.decompress(base64.b64decode(data)).decode()

    def handle_endtag(self, tag: str) -> None:
        self.element, self.given = "", {}

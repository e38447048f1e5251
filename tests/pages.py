"""What a browser reads in the pages that common.program.pages.page writes."""

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib


class Page(HTMLParser):
    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.text = Path(path).read_text(encoding="utf-8")
        self.title, self.element, self.given = "", "", {}
        self.overlay = None  # image of what was added
        self.volumes, self.loaded = {}, []  # images by name, in their order; addresses that its elements would load
        self.settings, self.niivue = None, ""  # what its script begins with, and the JavaScript that draws it
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str]]) -> None:
        self.element, self.given = tag, dict(attrs)
        self.loaded += [value for key, value in attrs if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        if self.element == "title":
            self.title += data
        elif self.given.get("id") == "settings":
            self.settings = json.loads(data)
        elif self.given.get("class") == "volume":
            self.volumes[self.given["data-name"]] = unpack(data)
        elif self.given.get("class") == "overlay":
            self.overlay = unpack(data)
        elif self.given.get("class") == "niivue":
            self.niivue = gzip.decompress(base64.b64decode(data)).decode()

    def handle_endtag(self, tag: str) -> None:
        self.element, self.given = "", {}


def unpack(data: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(data)))

"""What pip builds: bundles whose configs name this package, and their own folders, as they are installed.

An editable installation has the repository's configs, so there the package also has the name that these use.
"""

from __future__ import annotations

import re

from setuptools.command.build_py import build_py

_INSTALLED = "mri_sr_bundles"


class BuildBundles(build_py):
    """Copies configs with names that hold in any folder; :mod:`setuptools` calls it, without this package."""

    def run(self) -> None:
        """Build the packages; an editable wheel is made of the names of packages that it finds afterwards."""
        super().run()
        if self.editable_mode:
            self.distribution.packages.append("common")

    def copy_file(self, infile, outfile, *args, **kwargs):  # type: ignore[no-untyped-def, override]
        """Copy a file, a config as :func:`rename_installed_modules` writes it."""
        copied = super().copy_file(infile, outfile, *args, **kwargs)
        if str(infile).endswith(".json"):
            with open(infile, encoding="utf-8") as source, open(outfile, "w", encoding="utf-8") as target:
                target.write(rename_installed_modules(source.read()))
        return copied


def rename_installed_modules(text: str) -> str:
    """The text of a config with the names of installed modules, and with the bundle's installed folder."""
    text = re.sub(r"\bcommon(?=\.[a-z])", f"{_INSTALLED}.common", text)
    folder = f"$__import__('{_INSTALLED}.bundles').bundles.__path__[0]"
    return re.sub(r'(?<="bundle_root": ")bundles(/\w+)', rf"{folder} + '\1'", text)

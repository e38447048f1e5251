"""What is installed: ``common`` and ``bundles`` as parts of the package ``mri_sr_bundles``.

They keep to themselves there: a program has other modules that are called common. The configs name the modules as in
the repository; :mod:`common.offers` reads them as they are installed.
"""

from setuptools import find_packages, setup

PARTS = find_packages(include=["common", "common.*"])

setup(
    packages=["mri_sr_bundles.bundles", *(f"mri_sr_bundles.{name}" for name in PARTS)],
    package_dir={"mri_sr_bundles.bundles": "bundles", "mri_sr_bundles.common": "common"},
    package_data={
        "mri_sr_bundles.bundles": ["*/configs/*", "*/models/*.pt", "*/docs/*.md", "*/docs/*.txt"],
        "mri_sr_bundles.common": ["configs/*"],
    },
)

"""``python common/program/apps/deploy -i DICOM -o OUTPUT -m BUNDLE``."""

import sys
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[4]))  # folder of common

from app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""``python common/apps/deploy -i DICOM -o OUTPUT -m BUNDLE``."""

import sys

from app import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))

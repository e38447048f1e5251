"""What tests of reports share."""

import io

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from tests.bundles import runs


@pytest.fixture
def figures(monkeypatch):
    """Figures in the order in which they are written to their files, in none of which there is next to nothing."""
    made, save = [], Figure.savefig

    def saved(figure, path, **how):
        save(figure, path, **how)
        if isinstance(path, io.BytesIO):
            return  # of a page
        made.append(figure)
        assert imread(path, "png").std() > 0.05

    monkeypatch.setattr(Figure, "savefig", saved)
    return made


@pytest.fixture
def undrawn():
    with runs.undrawn():
        yield

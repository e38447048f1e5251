"""The command that simulates a cohort draws what it wrote."""

from matplotlib.image import imread

from common.program.commands.simulate import simulate
from common.program.pages import middle_slices as volumes


def test_the_picture_has_a_panel_for_each_volume(tmp_path, monkeypatch):
    figures, save = [], volumes.save_figure
    monkeypatch.setattr(volumes, "save_figure", lambda figure, path: figures.append(figure) or save(figure, path))
    for contrasts in ("t1w", "t1w,t2w,ct"):
        simulate(str(tmp_path / contrasts), 1, contrasts=contrasts, spacing=4.0)
        assert imread(tmp_path / contrasts / "simulated.png").std() > 0.1
    titles = [[axes.get_title() for axes in figure.axes] for figure in figures]
    assert titles == [["sub-001_t1w"], ["sub-001_ct", "sub-001_t1w", "sub-001_t2w"]]
    for figure in figures:
        for axes in figure.axes:
            image = axes.get_images()[0].get_array()
            assert min(image.shape) > 10 and image.std() > 0.1 * abs(image).mean()

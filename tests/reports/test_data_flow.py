"""The picture of a data flow: what is where, and that all of it can be read."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from common.reports.data_flow import Flow, Losses, data_flow
from common.reports.layers import layered


@pytest.fixture
def drawn(tmp_path, figures):
    return lambda flows: data_flow(tmp_path / "flow.png", flows) or figures[-1].axes[0]


def _random_flow(seed, steps):
    chance, keys = random.Random(seed), ["hr", "lr", "a_batch_key_with_a_long_name"]
    names, found, players = list(keys), {}, {}
    for i in range(steps):
        output = f"{chance.choice(['x', 'feature', 'some_longer_name'])}_{i}"
        found[output] = f"network_{chance.randrange(6)}", tuple(chance.sample(names, chance.choice([0, 1, 1, 1, 2, 3])))
        names.append(output)
    for i in range(chance.randrange(4)):
        terms = {f"term/{j}": chance.sample(names, chance.choice([1, 2])) for j in range(chance.randrange(1, 12))}
        unused = frozenset(name for name in terms if chance.random() < 0.3)
        players[f"player_{i}"] = Losses([f"network_{i}", f"network_{i + 3}"], terms, unused)
    return Flow(keys, found, players)


def _sides(box):
    return box.get_x(), box.get_y(), box.get_x() + box.get_width(), box.get_y() + box.get_height()


def _boxes(axes):
    """``(network, tensor)`` of each box, in the order of drawing, and its patch."""
    found, texts = [], [(t.get_text(), *t.get_position()) for t in axes.texts if t.get_ha() == "center"]
    for patch in (patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)):
        x, y, right, bottom = _sides(patch)
        within = sorted((ty, text) for text, tx, ty in texts if x < tx < right and y < ty < bottom)
        names = [text for _, text in within if text and not text.isdigit()]
        found.append((*["", *names][-2:], patch))
    return found


def _lines(axes):
    """The lines without their heads, and points on them."""
    lines = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch) and patch.get_linewidth() > 0]
    polygons = [line.get_path().to_polygons(closed_only=False) for line in lines]
    return [(line, Path(points).interpolated(20).vertices) for line, (points,) in zip(lines, polygons, strict=True)]


@pytest.mark.parametrize(("seed", "steps"), [(0, 0), (1, 1), (2, 6), (3, 12), (4, 20), (5, 30)])
def test_nothing_is_covered_or_cut_and_all_is_there(drawn, seed, steps):
    flow = _random_flow(seed, steps)
    flows = {"": flow} if seed % 2 else {"Stage 1": flow, "Stage 2": _random_flow(seed + 9, 8)}
    boxes = _boxes(axes := drawn(flows))
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    names = [(flow, name) for flow in flows.values() for name in (*flow.batch_keys, *flow.steps)]
    assert [box[:2] for box in boxes] == [(flow.steps.get(name, [""])[0], name) for flow, name in names]
    texts = [t.get_window_extent().transformed(axes.transData.inverted()) for t in axes.texts if t.get_text()]
    inside = [(b.x0, b.y1, b.x1, b.y0) for b in texts] + [_sides(patch) for *_, patch in boxes]
    assert all(0 < x and 0 < y and right < width and bottom < height for x, y, right, bottom in inside)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(texts, 2))
    lines = np.concatenate([np.empty((0, 2)), *(points for _, points in _lines(axes))])
    for *_, box in boxes:
        x, y, right, bottom = _sides(box)
        others = [_sides(other) for *_, other in boxes if other is not box]
        assert not any(x < r and left < right and y < b and top < bottom for left, top, r, b in others)
        assert not ((lines > [x + 0.5, y]).all(1) & (lines < [right - 0.5, bottom]).all(1)).any()
    for rim in (patch for patch in axes.patches if isinstance(patch, Circle)):
        x, y = rim.center
        reached = [max(b.x0 - x, x - b.x1, 0) ** 2 + max(b.y1 - y, y - b.y0, 0) ** 2 < rim.radius**2 for b in texts]
        assert sum(reached) == 1  # its own number
    terms = {term for flow in flows.values() for losses in flow.players.values() for term in losses.terms}
    said = " ".join(text.get_text() for text in axes.texts)
    assert all(term.rpartition("/")[2] in said for term in terms)


@pytest.mark.parametrize("seed", range(3))
def test_lines_come_from_the_inputs_in_their_colours_and_a_network_has_one_in_all_graphs(drawn, seed):
    flow = _random_flow(seed, 14)
    flow.players = {}  # or some would be grey
    boxes = _boxes(axes := drawn({"a": flow, "b": flow}))
    fills = {(network, to_hex(box.get_facecolor())) for network, _, box in boxes}
    assert len(fills) == len(dict(fills)) == len({fill for _, fill in fills})
    lines = [(to_hex(line.get_edgecolor()), *points[-1]) for line, points in _lines(axes)]
    for part in (boxes[: len(boxes) // 2], boxes[len(boxes) // 2 :]):
        edges = {name: to_hex(box.get_edgecolor()) for _, name, box in part}
        for _, name, box in part:
            x, y, _, bottom = _sides(box)
            enter = {height: colour for colour, end, height in lines if x - 6 < end < x and y < height < bottom}
            assert Counter(enter.values()) == Counter(edges[n] for n in flow.steps.get(name, ("", ()))[1])


def test_losses_are_numbered_and_what_has_no_weight_is_grey(drawn):
    steps = {"fake": ("shrink", ("hr",)), "cycle": ("grow", ("fake",)), "verdict": ("judge", ("fake",))}
    terms = {"cycle/l1": ["cycle", "hr"], "cycle/ssim": ["cycle", "hr"], "adversarial": ["verdict"]}
    generator = Losses(["grow"], terms, frozenset({"adversarial"}))
    judge = Losses(["judge"], {"real": ["verdict"]}, frozenset({"real"}))
    axes = drawn({"": Flow(["hr", "lr"], steps, {"generator": generator, "judge": judge})})
    said = [text.get_text() for text in axes.texts]
    assert {"trains grow", "cycle/l1, ssim", "cycle, hr", "adversarial", "verdict", "real"} <= set(said)
    assert sorted(text for text in said if text.isdigit()) == sorted("1" * 3 + "2" * 2 + "3" * 2)  # boxes and lists
    assert "grey" in said[-1] and "weight 0" in said[-1]
    boxes = {name: patch for _, name, patch in _boxes(axes)}
    assert {name for name, box in boxes.items() if box.get_linestyle() != "solid"} == {"lr", "verdict"}
    assert {name for name, box in boxes.items() if box.get_boxstyle().rounding_size > 1} == {"cycle", "verdict"}
    axes = drawn({"": Flow(["hr", "lr"], steps)})
    assert all(patch.get_linestyle() == "solid" for *_, patch in _boxes(axes))
    assert "grey" not in axes.texts[-1].get_text() and "trained" not in axes.texts[-1].get_text()


def test_the_picture_is_as_wide_as_a_page_and_always_the_same(tmp_path):
    many = {f"player_{i}": Losses(["net"], {"l1": ["hr"]}) for i in range(9)}
    flows = _random_flow(7, 5), _random_flow(7, 5), Flow(["hr"], {"sr": ("net", ["hr"])}, many)
    for name, flow in zip("abc", flows, strict=True):
        data_flow(tmp_path / f"{name}.png", {"": flow})
        assert imread(tmp_path / f"{name}.png").shape[1] == 1600
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_steps_stand_behind_their_inputs_and_no_line_crosses_without_need():
    steps = {"p": ["c"], "q": ["b"], "r": ["a"], "s": ["r", "q"], "t": ["s", "p"], "u": ["q"], "v": ["t", "a"]}
    layers = layered(["a", "b", "c"], steps)  # listed so that all lines cross
    assert layers.layer == {"a": 0, "b": 0, "c": 0, "p": 1, "q": 1, "r": 1, "s": 2, "u": 2, "t": 3, "v": 4}
    rank = {place: i for places in layers.order for i, place in enumerate(places)}
    for (a, b), (c, d) in itertools.combinations(layers.lines, 2):
        assert a[1] != c[1] or (rank[a] - rank[c]) * (rank[b] - rank[d]) >= 0
    for places in layers.order:
        for upper, lower in itertools.pairwise(places):
            least = 1.0 - 0.3 * (layers.passes(upper) + layers.passes(lower))
            assert layers.height[lower] - layers.height[upper] >= least - 1e-6
    assert np.ptp(list(layered(["a"], {"b": ["a"], "c": ["b"], "d": ["c"]}).height.values())) < 1e-6

from pathlib import Path

from common.io.files import find_shipped


def test_results_in_a_folder_of_a_bundles_name_do_not_hide_the_shipped_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped, given = find_shipped("bundles/srcnn"), Path("bundles/srcnn")
    assert shipped.is_absolute() and (shipped / "configs" / "train.json").is_file()
    (given / "eval").mkdir(parents=True)
    assert find_shipped(given) == shipped
    (given / "configs").mkdir()
    assert find_shipped(given) == given
    assert find_shipped("bundles/none") == Path("bundles/none")

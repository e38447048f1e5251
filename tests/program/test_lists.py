"""Lists as spreadsheets and editors store them: what is forgiven, and what is refused by line and column."""

import pytest

from common.program.lists import read_list

from ..refused import refused

READ = [
    {"person": "Anna Müller", "results": "a, b/sr.nii.gz", "left_out": "ü.nii.gz"},
    {"person": "02", "results": "c"},
]
COMMAS = 'person,results,left_out\nAnna Müller,"a, b/sr.nii.gz",ü.nii.gz\n02,c,\n'
SEMICOLONS = "person;results;left_out\nAnna Müller;a, b/sr.nii.gz;ü.nii.gz\n02;c;\n"
STORED = {
    "utf-8": COMMAS.encode(),
    "with a byte order mark, as Excel's CSV UTF-8": COMMAS.encode("utf-8-sig"),
    "Excel's CSV where commas are decimal": SEMICOLONS.encode("cp1252"),
    "Excel's Unicode text": SEMICOLONS.replace(";", "\t").replace("\n", "\r\n").encode("utf-16"),
    "UTF-16 without a mark": COMMAS.encode("utf-16-le"),
    "ends of lines of old Macs": SEMICOLONS.replace("\n", "\r").encode(),
    "capitals and blanks": COMMAS.replace("person,results,left_out", " Person ,Results\u00a0, Left-Out")
    .replace('Müller,"', 'Müller , "')
    .encode(),
    "lines and columns without text": f"\n,,,\n{COMMAS}  \n,,,\n;;;\n\n".replace("left_out\n", "left_out,,\n").encode(),
    "separator in the first line": f"sep=;\n{SEMICOLONS}".encode(),
    "another order of columns": '"left_out","results","person"\nü.nii.gz,"a, b/sr.nii.gz",Anna Müller\n,c,02'.encode(),
}


@pytest.mark.parametrize("stored", STORED.values(), ids=STORED)
def test_a_list_is_read_however_it_is_stored(tmp_path, stored):
    path = tmp_path / "list.csv"
    path.write_bytes(stored)
    assert [line.cells for line in read_list(path, ("person", "results"), ("left_out",))] == READ


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty", "person, results"]),
        ("person,results\n,,\n", ["only the header"]),
        ("person,scam\n1,2\n", ["line 1", "no column results", "scam", "left_out"]),
        ("\nperson,results,Person\n1,2,3\n", ["line 2", "column person", "2 times"]),
        ("person,results\n1,a\n\n,b\n3,\n", ["line 4: person is empty", "line 5: results is empty"]),
        ("person,results,left_out\n1,a,b.nii.gz,c\n", ["line 2", "4 cells", "3 columns", "comma", "quotes"]),
        ("person;results;;\n1;a;;b\n", ["line 2", "4 cells", "2 columns", "semicolon"]),
        ('person,results\n1,"a\n2,b\n3,c"\n', ["line 2", "results", "quotes"]),
        ("PK\x03\x04", ["workbook", "CSV"]),
        ("person,results\n1\x00,a\n", ["line 2", "person", "control character"]),
        ("# people\nperson;results\n1;a\n", ["line 1", "header, line 2, must come first"]),
        ("Study A,\n\nresults,person\n1,a\n", ["line 1", "header, line 3, must come first"]),
    ],
)
def test_what_is_refused(tmp_path, text, words):
    path = tmp_path / "list.csv"
    path.write_text(text)
    refused(lambda: read_list(path, ("person", "results"), ("left_out",)), ValueError, path, *words)


def test_all_lines_are_checked(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("person\n" + "\n".join(map(str, range(30))))
    text = refused(lambda: read_list(path, ["person"], (), lambda cells: [f"is {cells['person']}"]), ValueError)
    assert "line 2: is 0\n" in text and "line 21: is 19\n" in text and text.endswith("and 10 more")

"""The demo as a newcomer sees it: every mission method ends `done`, and the files are there."""

import json

import pytest

from expunge.certificate import verify
from expunge.cli.demo import MISSION
from expunge.cli.main import main

pytestmark = pytest.mark.slow


def test_demo_forgets_class_3_by_every_mission_method(tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out)
    assert "What this does not prove" in printed.err
    assert (out / "original.safetensors").is_file()
    for name in MISSION:
        record = json.loads((out / name / "record.json").read_text())
        assert record["outcome"]["outcome"] == "done", name
        assert list((out / name / "audits").glob("*/audit.json"))
    assert len(list(out.glob("retrained-*"))) == 3
    assert "its certificate: verified" in printed.err
    assert "one byte of the weights flipped: refuted" in printed.err
    assert verify(out / "prune-records", trust=out / "throw-away.pub.pem").exit_code == 0


def test_demo_refuses_a_folder_that_exists(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "Expected `--out` to name a new folder" in capsys.readouterr().err

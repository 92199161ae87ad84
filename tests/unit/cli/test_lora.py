"""`attlas lora`: trains, merges and takes out from the command line, and fails in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attlas.cli.app import app
from attlas.cli.common import guarded
from teaching import facts, save_pupil

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def run(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["attlas", "lora", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        guarded(app)
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture(scope="module")
def pupil(tmp_path_factory) -> Path:
    return save_pupil(tmp_path_factory.mktemp("pupil"))


@pytest.fixture
def data(tmp_path) -> Path:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in facts()), encoding="utf-8")
    return path


SHORT = ("--steps", 6, "--batch", 3, "--rank", 2, "--learning-rate", 0.02, "--evaluate-every", 3)


def test_an_adapter_is_trained_merged_and_taken_out(monkeypatch, capsys, pupil, data, tmp_path):
    code, out, _ = run(monkeypatch, capsys, "train", pupil, data, "--out", tmp_path / "a", *SHORT)
    assert code == 0
    assert "loss held out" in out
    assert "beside 4 modules, rank 2; 6 steps on 11 examples" in " ".join(out.split())
    assert f"next: attlas lora merge {pupil} {tmp_path / 'a'}" in " ".join(out.split())
    code, out, _ = run(
        monkeypatch, capsys, "merge", pupil, tmp_path / "a", "--out", tmp_path / "m", "--dtype", "bfloat16"
    )
    assert code == 0
    assert "Merged in bfloat16" in out
    assert "4 modules in all" in out
    code, out, _ = run(monkeypatch, capsys, "unmerge", tmp_path / "m", tmp_path / "a", "--out", tmp_path / "u")
    assert code == 0
    assert "name it with --base" in " ".join(out.split())


def test_machines_get_json(monkeypatch, capsys, pupil, data, tmp_path):
    heads = ("--projections", "query,output", "--heads", "1.0,0.3", "--variant", "rslora", "--held-out", "0.2")
    _, out, _ = run(monkeypatch, capsys, "train", pupil, data, "--out", tmp_path / "a", *SHORT, *heads, "--json")
    found = json.loads(out)
    assert len(found["losses"]) == 6
    assert [step for step, _ in found["evaluations"]] == [0, 3, 6]
    assert found["held_out"] == 2
    settings = found["provenance"]["settings"]
    assert settings["targets"]["heads"] == [[0, 3], [1, 0]]
    assert settings["lora"]["variant"] == "rslora"
    _, out, _ = run(monkeypatch, capsys, "merge", pupil, tmp_path / "a", "--out", tmp_path / "m", "--json")
    assert {row["rank"] for row in json.loads(out)["modules"]} == {2}
    base = ("--base", pupil)
    _, out, _ = run(
        monkeypatch, capsys, "unmerge", tmp_path / "m", tmp_path / "a", "--out", tmp_path / "u", *base, "--json"
    )
    assert all(row["off"] < 1e-3 for row in json.loads(out)["modules"])


def test_ranks_come_from_a_file(monkeypatch, capsys, pupil, data, tmp_path):
    ranks = {"model.layers.0.self_attn.q_proj": 3, "model.layers.1.self_attn.v_proj": 0}
    (tmp_path / "ranks.json").write_text(json.dumps(ranks))
    file = ("--ranks", tmp_path / "ranks.json")
    _, out, _ = run(monkeypatch, capsys, "train", pupil, data, "--out", tmp_path / "a", *SHORT, *file, "--json")
    assert json.loads(out)["ranks"] == {
        "model.layers.0.self_attn.q_proj": 3,
        "model.layers.0.self_attn.v_proj": 2,
        "model.layers.1.self_attn.q_proj": 2,
    }


def test_a_run_is_taken_up_again(monkeypatch, capsys, pupil, data, tmp_path):
    arguments = ("train", pupil, data, "--out", tmp_path / "a", *SHORT)
    run(monkeypatch, capsys, *arguments)
    code, _, said = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "out: wanted a folder without an adapter" in said
    code, out, _ = run(monkeypatch, capsys, *arguments, "--resume")
    assert code == 0
    assert "taken up again after step 6" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--projections", "q_prj"), "near it are q_proj"),
        (("--heads", "1"), "--heads: wanted heads as LAYER.HEAD"),
        (("--layers", "7"), "layers: wanted numbers from 0 to 1, got 7"),
        (("--rank", "9", "--projections", "value"), "rank: wanted at most 8"),
        (("--variant", "ia3"), "variant: wanted one of lora, rslora, dora"),
        (("--held-out", "nothing.jsonl"), "nothing.jsonl: there is no such file"),
        (("--ranks", "nothing.json"), "nothing.json: No such file or directory; check the path"),
    ],
)
def test_a_wrong_choice_is_one_line(monkeypatch, capsys, pupil, data, tmp_path, arguments, said):
    code, out, err = run(monkeypatch, capsys, "train", pupil, data, "--out", tmp_path / "a", *arguments)
    assert code == 2
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("attlas:")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not (tmp_path / "a").exists()


def test_faulty_lines_are_numbered(monkeypatch, capsys, pupil, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "abc"}\n\nno\n', encoding="utf-8")
    code, _, err = run(monkeypatch, capsys, "train", pupil, path, "--out", tmp_path / "a")
    assert code == 2
    assert "line 2 is empty; line 3 is not JSON; wanted JSON objects" in err


def test_help_teaches_without_torch():
    script = (
        "import sys; sys.argv = ['attlas', 'lora', 'train', '--help']\n"
        "from attlas.cli.app import main\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'peft', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("completion", "Ctrl-C", "--heads 16.0,17.3", "Then: attlas lora merge"):
        assert word in done.stdout

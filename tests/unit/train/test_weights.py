"""Weight files are whole or absent, checked to the bit, and fit the model or say why not."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medkit.train import CheckpointError, _commit, load_weights, save_weights


def _model() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Linear(4, 3))


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_weights_come_back_with_their_metadata(tmp_path: Path) -> None:
    model, other = _model(), _model()
    metadata = {"classes": ["grey", "white"], "dice": 0.1, "note": "é"}

    save_weights(model, tmp_path / "new" / "w.pt", metadata=metadata)
    report = load_weights(tmp_path / "new" / "w.pt", other)

    assert _equal(model.state_dict(), other.state_dict())
    assert report.metadata == metadata
    assert report.verified
    assert report.loaded == tuple(model.state_dict())
    assert report.missing == report.unexpected == report.mismatched == ()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["w.pt"]


def test_torch_alone_reads_the_file(tmp_path: Path) -> None:
    model = _model()
    save_weights(model, tmp_path / "w.pt", metadata={"a": 1})

    assert _equal(torch.load(tmp_path / "w.pt", weights_only=True), model.state_dict())


def test_files_of_torch_are_read_without_a_checksum(tmp_path: Path) -> None:
    model, other = _model(), _model()
    torch.save(model.state_dict(), tmp_path / "w.pt")

    report = load_weights(tmp_path / "w.pt", other)

    assert _equal(model.state_dict(), other.state_dict())
    assert not report.verified
    assert report.metadata == {}


def test_wrappers_leave_no_trace_in_names(tmp_path: Path) -> None:
    model = _model()
    wrapped = {f"module._orig_mod.{name}": t for name, t in model.state_dict().items()}
    inner = {name.replace("0.", "0._orig_mod.", 1): t for name, t in model.state_dict().items()}

    for number, state in enumerate((wrapped, inner)):
        save_weights(state, tmp_path / f"{number}.pt")
        stored = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert list(stored) == list(model.state_dict())


def test_a_compiled_model_exchanges_weights_with_a_plain_one(tmp_path: Path) -> None:
    model = _model()
    compiled = torch.compile(_model(), backend="eager")

    save_weights(model, tmp_path / "plain.pt")
    load_weights(tmp_path / "plain.pt", compiled)  # type: ignore[arg-type]
    save_weights(compiled, tmp_path / "compiled.pt")  # type: ignore[arg-type]
    load_weights(tmp_path / "compiled.pt", other := _model())

    assert _equal(other.state_dict(), model.state_dict())


def test_a_model_whose_part_is_called_module_keeps_its_weights(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
    other = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 1)})

    save_weights(model, tmp_path / "w.pt")
    load_weights(tmp_path / "w.pt", other)

    assert _equal(other.state_dict(), model.state_dict())


def test_names_that_would_fall_together_are_an_error(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(1), "module.weight": torch.ones(1)}

    with pytest.raises(ValueError, match="free of names that differ only in wrapper prefixes"):
        save_weights(state, tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_view_is_stored_without_what_is_behind_it(tmp_path: Path) -> None:
    save_weights({"w": torch.zeros(10_000_000)[:10]}, tmp_path / "w.pt")

    assert (tmp_path / "w.pt").stat().st_size < 10_000


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    model = nn.ModuleList([nn.Linear(300, 300, bias=False)] * 2)

    save_weights(model, tmp_path / "w.pt")

    assert (tmp_path / "w.pt").stat().st_size < 1.1 * 4 * 300 * 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.bias"), r"1 missing \(2.bias\)"),
        (lambda s: s.update(extra=torch.zeros(1)), r"1 unexpected \(extra\)"),
        (
            lambda s: s.update({"2.bias": torch.zeros(5)}),
            r"1 of another shape \(2.bias: \(5,\) in the file, \(3,\) in the model\)",
        ),
    ],
)
def test_a_strict_load_names_what_does_not_fit_and_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    model, state = _model(), dict(_model().state_dict())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    change(state)
    save_weights(state, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path / "w.pt", model)

    assert _equal(model.state_dict(), before)


def test_a_loose_load_takes_what_fits_and_reports_the_rest(tmp_path: Path) -> None:
    model, source = _model(), _model()
    state = dict(source.state_dict())
    del state["0.bias"]
    state["2.weight"] = torch.zeros(7, 4)
    state["extra"] = torch.zeros(1)
    save_weights(state, tmp_path / "w.pt")

    report = load_weights(tmp_path / "w.pt", model, strict=False)

    assert report.missing == ("0.bias",)
    assert report.unexpected == ("extra",)
    assert report.mismatched == ("2.weight: (7, 4) in the file, (3, 4) in the model",)
    assert torch.equal(model.state_dict()["0.weight"], source.state_dict()["0.weight"])


def test_a_load_that_fits_nothing_is_an_error_even_if_loose(tmp_path: Path) -> None:
    save_weights({f"x{i}": torch.zeros(1) for i in range(5)}, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=r"shares no tensor .*\(x0, x1, x2, \.\.\.\)"):
        load_weights(tmp_path / "w.pt", _model(), strict=False)


def test_names_can_be_changed_or_left_out_on_the_way(tmp_path: Path) -> None:
    source, model = _model(), _model()
    state = {f"net.{name}": tensor for name, tensor in source.state_dict().items()}
    save_weights({**state, "aux.weight": torch.zeros(3)}, tmp_path / "w.pt")

    load_weights(
        tmp_path / "w.pt",
        model,
        rename=lambda n: None if n.startswith("aux") else n.removeprefix("net."),
    )

    assert _equal(model.state_dict(), source.state_dict())


def test_every_flipped_bit_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_weights(_model(), path, metadata={"dice": 0.75})
    whole = path.read_bytes()
    chosen = random.Random(0)
    places = [chosen.randrange(len(whole)) for _ in range(150)]
    places += range(len(whole) - 60, len(whole))  # the end with metadata and checksum

    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"damaged|cut short"):
            load_weights(path, _model())


def test_every_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_weights(_model(), path)
    whole = path.read_bytes()

    for length in (0, 1, 21, 22, 1000, len(whole) - 1, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"damaged|cut short"):
            load_weights(path, _model())


def test_a_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": print}, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_weights(tmp_path / "w.pt", _model())


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {"epoch": 3}])
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="does not hold tensors by name"):
        load_weights(tmp_path / "w.pt", _model())


def test_a_zip_file_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").write_bytes(b"PK\x05\x06" + bytes(18))
    with zipfile.ZipFile(tmp_path / "text.pt", "w") as archive:
        archive.writestr("a.txt", "hello")

    with pytest.raises(CheckpointError, match="is no torch file"):
        load_weights(tmp_path / "empty.pt", _model())
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(tmp_path / "text.pt", _model())


def test_metadata_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metadata must be at most 65535 bytes of JSON"):
        save_weights(_model(), tmp_path / "w.pt", metadata={"a": "x" * 70_000})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    save_weights({"w": torch.zeros(10)}, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            save_weights({"w": torch.zeros(1_000_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)

    assert caught.value.errno == errno.EFBIG
    assert load_weights(path, nn.ParameterDict({"w": torch.ones(10)})).loaded == ("w",)
    assert [p.name for p in tmp_path.iterdir()] == ["w.pt"]


def test_leftovers_of_a_dead_process_are_cleared_and_others_are_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        child = process.pid
    host = _commit._HOST
    dead, alive = tmp_path / f".w.pt.{host}-{child}.tmp", tmp_path / f".w.pt.{host}-1.tmp"
    elsewhere, other = (
        tmp_path / f".w.pt.elsewhere-{child}.tmp",
        tmp_path / f".v.pt.{host}-{child}.tmp",
    )
    for path in (dead, alive, elsewhere, other):
        path.write_bytes(b"half")

    save_weights({"w": torch.zeros(1)}, tmp_path / "w.pt")

    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()
    assert other.exists()


def test_files_of_processes_that_may_run_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(process: int, number: int) -> None:
        raise PermissionError(process, number)

    own, other = (tmp_path / f".w.pt.{_commit._HOST}-{pid}.tmp" for pid in (os.getpid(), 4_000_000))
    for path in (own, other):
        path.write_bytes(b"half")
    monkeypatch.setattr(os, "kill", forbidden)

    _commit.remove_leftovers(tmp_path)

    assert own.exists()
    assert other.exists()


def test_a_file_that_does_not_end_as_expected_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", lambda _, stream: stream.write(b"something else"))

    with pytest.raises(CheckpointError, match="did not end the file as a zip file ends"):
        save_weights(_model(), tmp_path / "w.pt")
    assert list(tmp_path.iterdir()) == []


def test_windows_has_no_folders_to_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(_commit.os, "name", "nt")
    monkeypatch.setattr(_commit.os, "open", lambda *arguments: opened.append(arguments))

    _commit.sync_folder(tmp_path)

    assert opened == []


@pytest.mark.parametrize("kind", ["weights", "checkpoint"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(kind: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_while_saving.py")

    output = subprocess.run(
        [sys.executable, str(script), kind, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout

    result = json.loads(output)
    assert result["phases"] >= 5
    assert len(result["outcomes"]) == result["phases"] + 12
    assert all(result["outcomes"])
    assert result["left"] == []

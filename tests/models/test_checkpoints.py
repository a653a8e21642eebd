"""Checkpoints: whole or not there, and the one before where the last is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tfgen.models.checkpoints import (
    Progress,
    open_checkpoint,
    read_checkpoint,
    write_checkpoint,
)

STATE = [np.zeros([3, 4], np.float32), np.zeros([], np.int64)]
WEIGHTS = STATE[:1]


def progress(epoch: int, best_epoch: int = 1) -> Progress:
    weights = np.full([3, 4], epoch, np.float32) + np.arange(4, dtype=np.float32) / 7
    return Progress(
        epoch,
        {"loss": 1.0 / epoch, "val_loss": 0.1},
        best_epoch,
        0.1,
        [weights + 1] if best_epoch else [],
        [weights, np.array(2**62 + epoch)],
    )


def assert_same(found: Progress | None, wanted: Progress) -> None:
    assert found is not None
    for name in ("epoch", "history", "best_epoch", "best_val_loss"):
        assert getattr(found, name) == getattr(wanted, name)
    for name in ("best", "state"):
        for a, b in zip(getattr(found, name), getattr(wanted, name), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype


def test_the_last_is_read(tmp_path):
    assert read_checkpoint(tmp_path, WEIGHTS, STATE) is None
    write_checkpoint(tmp_path, progress(1, best_epoch=0))
    assert_same(read_checkpoint(tmp_path, WEIGHTS, STATE), progress(1, best_epoch=0))
    for epoch in (2, 3):
        write_checkpoint(tmp_path, progress(epoch))
    assert_same(read_checkpoint(tmp_path, WEIGHTS, STATE), progress(3))
    assert {path.name for path in tmp_path.iterdir()} == {"last.npz", "before.npz"}


def test_one_for_another_network_is_none(tmp_path):
    write_checkpoint(tmp_path, progress(1))
    assert read_checkpoint(tmp_path, [np.zeros([4, 3], np.float32)], STATE) is None
    assert read_checkpoint(tmp_path, WEIGHTS, [*STATE, STATE[0]]) is None
    assert read_checkpoint(tmp_path, WEIGHTS, [STATE[0], np.zeros([], np.int32)]) is None


def test_whatever_is_damaged_the_one_before_is_taken(tmp_path):
    """Every byte that matters is covered by a check sum."""
    write_checkpoint(tmp_path, progress(1))
    write_checkpoint(tmp_path, progress(2))
    path, rng = tmp_path / "last.npz", np.random.default_rng(0)
    whole, epochs = path.read_bytes(), []
    for kind in ("flip", "cut", "zero", "insert"):
        for _ in range(40):
            data, place = bytearray(whole), int(rng.integers(len(whole)))
            if kind == "flip":
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == "cut":
                del data[place:]
            elif kind == "zero":
                data[place : place + 100] = bytes(len(data[place : place + 100]))
            else:
                data[place:place] = rng.bytes(20)
            path.write_bytes(data)
            found = read_checkpoint(tmp_path, WEIGHTS, STATE)
            assert_same(found, progress(found.epoch))
            epochs.append(found.epoch)
    assert set(epochs) == {1, 2}
    assert epochs.count(1) > 100


@pytest.mark.parametrize("failing", ["write", "first rename", "second rename"])
def test_what_cannot_be_written_leaves_the_last(tmp_path, monkeypatch, failing):
    for epoch in (1, 2):
        write_checkpoint(tmp_path, progress(epoch))
    renamed, rename = [], Path.replace

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def replace(self, target):
        renamed.append(target)
        if len(renamed) == (1 if failing == "first rename" else 2):
            full()
        rename(self, target)

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(np, "savez", full)
        else:
            patch.setattr(Path, "replace", replace)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(tmp_path, progress(3))
    assert_same(read_checkpoint(tmp_path, WEIGHTS, STATE), progress(2))
    assert not (tmp_path / "new").exists()
    write_checkpoint(tmp_path, progress(3))
    assert_same(read_checkpoint(tmp_path, WEIGHTS, STATE), progress(3))


def test_what_a_kill_leaves_is_no_hindrance(tmp_path):
    folder, task = tmp_path / "model.partial", {"seed": 1}

    def interrupt():
        with open_checkpoint(folder, task, False) as opened:
            write_checkpoint(opened, progress(1))
            (folder / "new").write_bytes(b"half")
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    (folder / "task.json").write_bytes(b"\xff\x00")
    with (
        pytest.raises(FileExistsError, match="keeps another, interrupted training"),
        open_checkpoint(folder, task, False),
    ):
        pass
    with open_checkpoint(folder, task, True) as opened:
        assert read_checkpoint(opened, WEIGHTS, STATE) is None
    assert not folder.exists()


def test_what_is_left_of_a_removed_one_is_not_gone_on_with(tmp_path):
    """A kill while the folder was being removed: whose checkpoint it is nothing says."""
    folder = tmp_path / "model.partial"
    folder.mkdir()
    write_checkpoint(folder, progress(1))
    with open_checkpoint(folder, {"seed": 2}, False) as opened:
        assert read_checkpoint(opened, WEIGHTS, STATE) is None

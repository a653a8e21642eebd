"""Outputs are whole or not there, whatever goes wrong in mid-write."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tfgen._files import (
    OutputExistsError,
    OutputInUseError,
    new_file,
    new_folder,
    require_absent,
    require_file,
    require_folder_replaceable,
    reserve,
)


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "data.h5"
    path.write_text("old")
    return path


@pytest.fixture
def old_folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "weights").write_text("old")
    return path


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class TestNewFile:
    def test_appears_only_when_whole(self, tmp_path):
        path = tmp_path / "a.extxyz"
        with new_file(path) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".extxyz"
            temporary.write_text("half")
            assert not path.exists()
            temporary.write_text("whole")
        assert path.read_text() == "whole"
        assert left(tmp_path) == ["a.extxyz"]

    def test_by_a_relative_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with new_file("a.txt") as temporary:
            temporary.write_text("whole")
        assert left(tmp_path) == ["a.txt"]

    def test_has_the_permissions_that_open_gives(self, tmp_path, umask):
        with new_file(tmp_path / "a") as temporary:
            temporary.write_text("whole")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask
        assert os.umask(umask) == umask

    def test_is_refused_over_an_old_one(self, old_file):
        with pytest.raises(FileExistsError, match="data.h5' exists; pass overwrite=True"):
            new_file(old_file).__enter__()
        assert old_file.read_text() == "old"

    def test_replaces_an_old_one_when_asked(self, tmp_path, old_file):
        with new_file(old_file, overwrite=True) as temporary:
            temporary.write_text("new")
            assert old_file.read_text() == "old"
        assert old_file.read_text() == "new"
        assert left(tmp_path) == ["data.h5"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
    def test_leaves_the_old_one_whole_on_failure(self, tmp_path, old_file, error):
        def write():
            with new_file(old_file, overwrite=True) as temporary:
                temporary.write_text("half")
                raise error

        with pytest.raises(error):
            write()
        assert old_file.read_text() == "old"
        assert left(tmp_path) == ["data.h5"]

    def test_leaves_the_old_one_whole_on_a_full_disk(self, tmp_path, old_file, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        def write():
            with new_file(old_file, overwrite=True) as temporary, temporary.open("w") as file:
                file.write("half")
                file.flush()
                os.write(file.fileno(), b"more")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            write()
        assert old_file.read_text() == "old"
        assert left(tmp_path) == ["data.h5"]

    @pytest.mark.parametrize("method", ["replace", "chmod"])
    def test_leaves_the_old_one_whole_when_the_last_step_fails(
        self, tmp_path, old_file, monkeypatch, method
    ):
        def write():
            with new_file(old_file, overwrite=True) as temporary:
                temporary.write_text("new")

        def fail(*_):
            raise PermissionError

        monkeypatch.setattr(Path, method, fail)
        with pytest.raises(PermissionError):
            write()
        monkeypatch.undo()
        assert old_file.read_text() == "old"
        assert left(tmp_path) == ["data.h5"]

    def test_is_refused_over_a_folder(self, tmp_path, old_folder):
        with pytest.raises(IsADirectoryError, match="model' is a folder, a file was expected"):
            new_file(old_folder, overwrite=True).__enter__()
        assert left(tmp_path) == ["model"]


class TestNewFolder:
    def test_appears_only_when_whole(self, tmp_path, umask):
        path = tmp_path / "model"
        with new_folder(path) as temporary:
            assert temporary.parent == tmp_path
            (temporary / "weights").write_text("new")
            assert not path.exists()
        assert left(tmp_path) == ["model"]
        assert (path / "weights").read_text() == "new"
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask

    def test_by_a_relative_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with new_folder("model") as temporary:
            (temporary / "weights").write_text("new")
        assert left(tmp_path) == ["model"]

    def test_is_refused_over_an_old_one(self, old_folder):
        with pytest.raises(FileExistsError, match="model' exists; pass overwrite=True"):
            new_folder(old_folder).__enter__()

    def test_replaces_an_old_one_wholly(self, tmp_path, old_folder):
        with new_folder(old_folder, overwrite=True) as temporary:
            (temporary / "other").write_text("new")
            assert (old_folder / "weights").read_text() == "old"
        assert left(tmp_path) == ["model"]
        assert left(old_folder) == ["other"]

    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_leaves_the_old_one_whole_on_failure(self, tmp_path, old_folder, error):
        def write():
            with new_folder(old_folder, overwrite=True) as temporary:
                (temporary / "weights").write_text("half")
                raise error

        with pytest.raises(error):
            write()
        assert left(tmp_path) == ["model"]
        assert (old_folder / "weights").read_text() == "old"

    def test_puts_the_old_one_back_when_the_last_step_fails(
        self, tmp_path, old_folder, monkeypatch
    ):
        rename = Path.rename

        def fail_for_the_new_one(self, target):
            if (self / "new").exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            return rename(self, target)

        def write():
            with new_folder(old_folder, overwrite=True) as temporary:
                (temporary / "new").write_text("new")

        monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
        with pytest.raises(OSError, match="No space left"):
            write()
        assert left(tmp_path) == ["model"]
        assert left(old_folder) == ["weights"]

    def test_is_refused_over_a_file(self, tmp_path, old_file):
        with pytest.raises(NotADirectoryError, match="is a file, a folder was expected"):
            new_folder(old_file, overwrite=True).__enter__()
        assert left(tmp_path) == ["data.h5"]


class TestRequire:
    def test_file(self, tmp_path, old_file):
        assert require_file(str(old_file)) == old_file
        with pytest.raises(FileNotFoundError, match="model file '.*gone' does not exist"):
            require_file(tmp_path / "gone", "model file")
        with pytest.raises(FileNotFoundError, match="is a folder"):
            require_file(tmp_path)

    def test_absent(self, tmp_path, old_file):
        assert require_absent(str(tmp_path / "new")) == tmp_path / "new"
        assert require_absent(old_file, overwrite=True) == old_file
        with pytest.raises(FileExistsError, match="exists; pass overwrite=True"):
            require_absent(old_file)
        with pytest.raises(FileNotFoundError, match="folder '.*nowhere' does not exist"):
            require_absent(tmp_path / "nowhere" / "new")
        with pytest.raises(FileNotFoundError, match="folder '.*data.h5' does not exist"):
            require_absent(old_file / "new")

    def test_folder_replaceable(self, tmp_path, old_folder, old_file):
        kinds = ["weights", "config"]
        assert require_folder_replaceable(tmp_path / "new", False, kinds) == tmp_path / "new"
        assert require_folder_replaceable(str(old_folder), True, kinds) == old_folder
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            require_folder_replaceable(old_folder, False, kinds)
        with pytest.raises(NotADirectoryError, match="is a file, a folder was expected"):
            require_folder_replaceable(old_file, True, kinds)

    def test_folder_with_other_contents_is_not_replaceable(self, old_folder):
        (old_folder / ".git").mkdir()
        with pytest.raises(FileExistsError, match=r"holds '\.git', which tfgen has not put there"):
            require_folder_replaceable(old_folder, True, ["weights"])

    def test_absent_takes_no_device_and_no_folder_for_a_file(self, old_folder):
        with pytest.raises(FileExistsError, match="'/dev/null' is no ordinary file"):
            require_absent("/dev/null", overwrite=True)
        with pytest.raises(IsADirectoryError, match="is a folder, a file was expected"):
            require_absent(old_folder, overwrite=True)


def test_a_link_stays_and_its_file_is_replaced(tmp_path, old_file):
    link = tmp_path / "link.txt"
    link.symlink_to(old_file)
    with new_file(link, overwrite=True) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert old_file.read_text() == "new"


class TestWhatHasAppearedMeanwhile:
    def test_is_not_replaced_by_a_file(self, tmp_path):
        def write():
            with new_file(tmp_path / "data.h5") as temporary:
                temporary.write_text("new")
                (tmp_path / "data.h5").write_text("of somebody else")

        with pytest.raises(OutputExistsError, match="data.h5' exists"):
            write()
        assert (tmp_path / "data.h5").read_text() == "of somebody else"
        assert left(tmp_path) == ["data.h5"]

    def test_is_not_replaced_by_a_folder(self, tmp_path):
        def write():
            with new_folder(tmp_path / "model"):
                (tmp_path / "model").mkdir()
                (tmp_path / "model" / "weights").write_text("of somebody else")

        with pytest.raises(OutputExistsError, match="model' exists"):
            write()
        assert left(tmp_path) == ["model"]
        assert left(tmp_path / "model") == ["weights"]

    def test_is_not_replaced_where_there_are_no_hard_links(self, tmp_path, monkeypatch):
        def link(*_):
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        with new_file(tmp_path / "data.h5") as temporary:
            temporary.write_text("new")
        assert (tmp_path / "data.h5").read_text() == "new"

        def write():
            with new_file(tmp_path / "other.h5"):
                (tmp_path / "other.h5").write_text("of somebody else")

        with pytest.raises(OutputExistsError, match="other.h5' exists"):
            write()
        assert (tmp_path / "other.h5").read_text() == "of somebody else"
        assert left(tmp_path) == ["data.h5", "other.h5"]


def in_another_thread(function, *arguments):
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function, *arguments).result()


def reserve_briefly(path) -> None:
    with reserve(path):
        pass


class TestReserve:
    def test_refuses_others_and_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with reserve("data.h5"):
            for name in (tmp_path / "data.h5", "data.h5", str(tmp_path / "." / "data.h5")):
                with pytest.raises(OutputInUseError, match="data.h5' is being written by another"):
                    in_another_thread(reserve_briefly, name)
            in_another_thread(reserve_briefly, "data.xyz")
            with reserve(tmp_path / "data.h5"):  # the one who has it
                pass
            with pytest.raises(OutputInUseError):
                in_another_thread(reserve_briefly, "data.h5")
        in_another_thread(reserve_briefly, "data.h5")
        assert left(tmp_path) == []

    def test_a_link_to_an_output_is_the_same_output(self, tmp_path, old_file):
        (tmp_path / "link.h5").symlink_to(old_file)
        with reserve(old_file), pytest.raises(OutputInUseError):
            in_another_thread(reserve_briefly, tmp_path / "link.h5")

    def test_ends_with_a_process_that_is_killed(self, tmp_path):
        code = (
            "import sys, time\n"
            "from tfgen._files import new_file, reserve\n"
            "with reserve(sys.argv[1]), new_file(sys.argv[1]):\n"
            "    print('reserved', flush=True); time.sleep(60)\n"
        )
        path = tmp_path / "data.h5"
        root = Path(__file__).parents[1]
        with subprocess.Popen(
            [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, cwd=root
        ) as process:
            assert process.stdout.readline() == b"reserved\n"
            with pytest.raises(OutputInUseError):
                reserve_briefly(path)
            assert len(left(tmp_path)) == 2  # the lock, and half a file
            process.kill()
        with reserve(path):
            assert left(tmp_path) == [".data.h5.lock"]
        assert left(tmp_path) == []

    def test_removes_what_was_left_of_this_output_only(self, tmp_path):
        others = [".data-b-a1b2c3d4.h5", ".data-a1b2c3d4.xyz", ".data.h5-notes", "data.h5"]
        for name in (".data-a1b2c3d4.h5", *others):
            (tmp_path / name).write_text("")
        (tmp_path / ".data.h5-a1b2_3d4" / "deep").mkdir(parents=True)
        reserve_briefly(tmp_path / "data.h5")
        assert left(tmp_path) == sorted(others)

    def test_an_old_folder_on_its_way_out_comes_back(self, tmp_path):
        (tmp_path / ".model-a1b2c3d4.old").mkdir()
        (tmp_path / ".model-a1b2c3d4.old" / "weights").write_text("old")
        (tmp_path / ".model-a1b2c3d4").mkdir()
        reserve_briefly(tmp_path / "model")
        assert left(tmp_path) == ["model"]
        assert (tmp_path / "model" / "weights").read_text() == "old"
        (tmp_path / ".model-a1b2c3d4.old").mkdir()
        reserve_briefly(tmp_path / "model")
        assert left(tmp_path) == ["model"]
        assert left(tmp_path / "model") == ["weights"]

    def test_says_where_nothing_can_be_written(self, tmp_path, old_file):
        for name in ("nowhere", old_file.name):
            with pytest.raises(FileNotFoundError, match=f"folder '.*{name}' does not exist"):
                reserve_briefly(tmp_path / name / "new")


def test_a_folder_with_leftovers_of_its_own_files_is_replaceable(old_folder):
    (old_folder / ".weights-a1b2c3d4").write_text("half")
    require_folder_replaceable(old_folder, True, ["weights"])
    (old_folder / ".other-a1b2c3d4").write_text("half")
    with pytest.raises(FileExistsError, match="holds '.other-a1b2c3d4'"):
        require_folder_replaceable(old_folder, True, ["weights"])

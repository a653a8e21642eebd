"""Files that the commands are run on, made once."""

from __future__ import annotations

import pytest
import small


@pytest.fixture(scope="session")
def dataset_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("dataset") / "small.h5"
    small.dataset().save(path)
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    small.model().save(folder)
    return folder


@pytest.fixture
def quick():
    with small.quick_search():
        yield


@pytest.fixture(autouse=True)
def brief_nnp(monkeypatch):
    """NNPs that are learned in this process cost no more than a second."""
    small.brief_nnp(monkeypatch, min_calculations=1, epochs=2)

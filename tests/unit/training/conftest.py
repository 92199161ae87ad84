from __future__ import annotations

from pathlib import Path

import pytest

import attlas
from teaching import save_pupil


@pytest.fixture(scope="session")
def pupil_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model that reads letters."""
    return save_pupil(tmp_path_factory.mktemp("pupil"))


@pytest.fixture
def pupil(pupil_folder: Path) -> attlas.LanguageModel:
    """A tiny model that reads letters, one of its own for each test."""
    return attlas.load(pupil_folder)

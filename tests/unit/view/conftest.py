from __future__ import annotations

import pytest

from attlas.heads import HeadStatistics
from viewing import measured


@pytest.fixture(scope="session")
def statistics() -> HeadStatistics:
    return measured()

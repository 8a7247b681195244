"""The store in MariaDB keeps the promise of every store."""

from __future__ import annotations

from functools import cache

from retrysafe.testing.cases_doubt import EngineErrors
from tests.stores.cutting_proxy import CuttingProxy
from tests.stores.mariadb import ManualMysqlStore, server
from tests.stores.ways import main

TestMysql = main(ManualMysqlStore)


@cache
def proxy():
    return CuttingProxy(server().port)


class TestMysqlThatIsNotHeard(EngineErrors):
    """What is asked arrives and is done, and no answer comes back: of a record, and of a new connection."""

    make = staticmethod(lambda clock, folder: ManualMysqlStore(clock, folder, port=proxy().port))
    failing = staticmethod(lambda _: proxy().mute())

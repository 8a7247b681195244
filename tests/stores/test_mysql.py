"""The store in MariaDB keeps the promise of every store."""

from __future__ import annotations

from retrysafe.testing import store_contract
from tests.stores.mariadb import ManualMysqlStore

TestMysql = store_contract(ManualMysqlStore)

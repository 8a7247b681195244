"""Payments between accounts: FastAPI and PostgreSQL, with one commit for a payment and the record of its key."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import asyncpg  # type: ignore[import-untyped]  # it has no types
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from retrysafe import Operation, Policy
from retrysafe.fastapi import IdempotencyKey, IdempotencyMiddleware, describe, idempotent

DATABASE = os.environ["DATABASE_URL"]
TABLES = """
CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, cents bigint NOT NULL CHECK (cents >= 0));
CREATE TABLE IF NOT EXISTS payments (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payer text NOT NULL, payee text NOT NULL, cents bigint NOT NULL, reference text NOT NULL
);
INSERT INTO accounts VALUES ('ann', 10000), ('bob', 0) ON CONFLICT DO NOTHING;
"""


class Payment(BaseModel):
    """What a client orders."""

    to: str
    cents: int = Field(gt=0, le=1_000_000)
    reference: str = Field(default="", max_length=100)


@asynccontextmanager
async def prepared(app: FastAPI) -> AsyncIterator[None]:
    """Connections to the database, and its tables."""
    async with asyncpg.create_pool(DATABASE, min_size=1, max_size=10) as pool:
        await pool.execute(TABLES)
        app.state.pool = pool
        yield


def payer(x_account: Annotated[str | None, Header()] = None) -> str:
    """Who pays. The proxy in front has checked it, and removes the field from what clients send."""
    if x_account is None:
        raise HTTPException(401, "who are you?")
    return x_account


Payer = Annotated[str, Depends(payer)]
payments = APIRouter(prefix="/v1/payments")


@payments.post("", status_code=201)
@idempotent(required=True, transactional=True, lifetime="7d")
async def pay(
    payment: Payment, payer: Payer, request: Request, operation: Annotated[Operation, Depends(IdempotencyKey())]
) -> Any:
    """Move money, and record the answer, in one transaction: a crash at any moment leaves both or nothing."""
    async with request.app.state.pool.acquire() as connection, connection.transaction():
        taken = await connection.execute(
            "UPDATE accounts SET cents = cents - $1 WHERE name = $2 AND cents >= $1", payment.cents, payer
        )
        if taken == "UPDATE 0":
            raise HTTPException(402, "there is not that much in the account")
        given = await connection.execute(
            "UPDATE accounts SET cents = cents + $1 WHERE name = $2", payment.cents, payment.to
        )
        if given == "UPDATE 0":
            raise HTTPException(404, "there is no such payee")
        number = await connection.fetchval(
            "INSERT INTO payments (payer, payee, cents, reference) VALUES ($1, $2, $3, $4) RETURNING number",
            payer, payment.to, payment.cents, payment.reference,
        )  # fmt: skip
        answer = JSONResponse({"payment": number}, 201, {"Location": f"/v1/payments/{number}"})
        return await operation.complete_within(connection, answer)


@payments.get("")
async def made(payer: Payer, request: Request, reference: str | None = None) -> list[dict[str, Any]]:
    """The payments of an account; with a reference, those that carry it."""
    rows = await request.app.state.pool.fetch(
        "SELECT number, payee, cents, reference FROM payments"
        " WHERE payer = $1 AND ($2::text IS NULL OR reference = $2) ORDER BY number",
        payer, reference,
    )  # fmt: skip
    return [dict(row) for row in rows]


app = FastAPI(title="Payments", lifespan=prepared)
app.include_router(payments)
app.add_middleware(
    IdempotencyMiddleware,
    store=DATABASE,
    scope="header:X-Account",
    policy=Policy(lease=os.environ.get("LEASE", "30s")),
    status_path="/idempotency/requests",
    contract_path="/.well-known/idempotency-contract",
)
describe(app)

"""Tools of a Model Context Protocol server behind their door: run once for each key, whatever the agent does."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, MCPError, UrlElicitationRequiredError
from mcp.server import MCPServer, Server
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitRequestURLParams,
    ElicitResult,
    InputRequiredResult,
    ListToolsResult,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel

from retrysafe import ConfigurationError, Policy, operation
from retrysafe.errors import OperationInProgress, StoreUnavailable
from retrysafe.mcp import Argument, Idempotency, Meta
from retrysafe.operation import current_operation
from retrysafe.stores.memory import MemoryStore
from tests.drive.harness import ManualClock, eventually, in_loop

PNG = b"\x89PNG\r\n"
KEY = "idempotency_key"
BROKEN = "broken"


class Refund(BaseModel):
    """What a tool answers."""

    order: str
    cents: int


class NothingSent(Exception):
    """Declared: nothing has happened."""


class NotReached(ToolError):
    """The same, with a text for the agent."""


class Desk:
    """A server with one tool, `refund`, that does as it is told and counts.

    Args:
        tool: settings of the tool.
        settings: of the door.
    """

    def __init__(self, tool: Any = None, **settings: Any) -> None:
        self.clock = ManualClock()
        self.ran = 0
        self.does: Callable[[], Any] = lambda: None
        self.server = MCPServer("desk")
        settings = {"store": MemoryStore(self.clock), "scope": "account:me", **settings}
        self.idempotency = Idempotency(**settings)

        @self.idempotency.tool(self.server, **(tool or {}))
        async def refund(order: str, cents: int = 5) -> Refund:
            """Give a customer their money back."""
            self.ran += 1
            done = self.does()
            if asyncio.iscoroutine(done):
                done = await done
            return done if isinstance(done, Refund) else Refund(order=order, cents=cents)

    async def call(self, key: str | None = "k-1", *, meta: Any = None, name: str = "refund", **arguments: Any) -> Any:
        """One call, as a client makes it."""
        given = {"order": "o-1", **arguments, **({KEY: key} if key else {})}
        async with Client(self.server) as client:
            try:
                return await client.call_tool(name, given, meta=meta)
            except MCPError as error:  # raised in here, it would come out in a group
                return error


def said(result):
    """What a result is to an agent: error or not, texts, data."""
    texts = [content.text for content in result.content if isinstance(content, TextContent)]
    return result.is_error, " ".join(texts), result.structured_content


def problem(result):
    """The code of a refusal, and whether the same call may be made again."""
    assert result.is_error
    found = result.meta["idempotency-problem"]
    return found["code"], found["retryable"]


def hints(tool):
    """The annotations of a tool, but for those that it does not have."""
    return tool.annotations.model_dump(exclude_none=True) if tool.annotations else None


def is_replay(result):
    return (result.meta or {}).get("idempotent-replayed", False)


def raises(error):
    def work():
        raise error

    return work


@in_loop
async def test_a_further_call_gets_the_first_result():
    """Content and data, to the letter; another key is another operation."""
    desk = Desk()
    first, again = await desk.call(), await desk.call()
    assert said(first) == said(again)
    assert first.structured_content == {"order": "o-1", "cents": 5}
    assert (is_replay(first), is_replay(again), desk.ran) == (False, True, 1)
    assert (await desk.call(cents=5)).structured_content == first.structured_content
    await desk.call("k-2")
    assert desk.ran == 2


@in_loop
async def test_a_result_of_any_kind():
    """Pictures, several blocks, and what was answered as an error."""
    server, ran = MCPServer("desk"), []
    idempotency = Idempotency(store=MemoryStore(), scope="account:me")

    @idempotency.tool(server)
    def picture(order: str) -> list[str | Image]:
        ran.append(order)
        return [order, Image(data=PNG, format="png")]

    @idempotency.tool(server)
    def whole(order: str) -> CallToolResult:
        ran.append(order)
        return CallToolResult(content=[], structured_content={"none": None}, is_error=True, _meta={"own": 1})

    @idempotency.tool(server, "declined")
    async def refuse(order: str) -> str:
        ran.append(order)
        raise ToolError("the card is gone")

    async with Client(server) as client:
        for name in ("picture", "whole", "declined"):
            first, again = [await client.call_tool(name, {"order": name, KEY: name}) for _ in range(2)]
            assert (first.content, said(first)) == (again.content, said(again))
            assert again.meta == {**(first.meta or {}), "idempotent-replayed": True}
    assert ran == ["picture", "whole", "declined"]
    assert said(again) == (True, "Error executing tool declined: the card is gone", None)


@in_loop
async def test_what_the_client_is_shown():
    """The key is an argument that must be there, the tool is said to be idempotent, and the rest is as it was."""
    desk = Desk({"annotations": ToolAnnotations(title="Refund", idempotent_hint=False), "title": "Back"})
    plain = MCPServer("plain")

    @plain.tool()
    async def refund(order: str, cents: int = 5) -> Refund:
        """Give a customer their money back."""
        raise AssertionError

    async with Client(desk.server) as client, Client(plain) as other:
        ((shown,), (unprotected,)) = (await client.list_tools()).tools, (await other.list_tools()).tools
    assert shown.input_schema["required"] == ["order", KEY]
    assert "Send the same key" in shown.input_schema["properties"].pop(KEY)["description"]
    assert shown.input_schema["properties"] == unprotected.input_schema["properties"]
    assert (shown.description, shown.output_schema) == (unprotected.description, unprotected.output_schema)
    assert (shown.title, hints(shown)) == ("Back", {"title": "Refund", "idempotent_hint": True})


# --- refusals -------------------------------------------------------------------------------------


@in_loop
async def test_other_arguments_under_the_key():
    """Nothing runs, whatever tool it is."""
    desk = Desk()
    await desk.call()

    @desk.idempotency.tool(desk.server)
    def other(order: str) -> str:
        raise AssertionError

    assert problem(await desk.call(cents=9)) == ("key-reused", False)
    assert problem(await desk.call(name="other")) == ("key-reused", False)
    assert desk.ran == 1


@pytest.mark.parametrize("policy", [Policy(), Policy(in_flight="wait")])
@in_loop
async def test_while_the_first_call_runs(policy):
    """A further one is told when to come back, with the same key; who may wait gets the result."""
    desk, going = Desk(policy=policy), asyncio.Event()
    desk.does = going.wait
    first = asyncio.create_task(desk.call())
    await eventually(lambda: desk.ran)
    second = asyncio.create_task(desk.call())
    if policy.in_flight == "refuse":
        refused = await second
        assert problem(refused) == ("in-progress", True)
        assert refused.meta["idempotency-problem"]["retry_after"] == 1
        assert f"the same {KEY} among them" in said(refused)[1]
        second = first
    going.set()
    assert said(await first) == said(await second) == said(await desk.call())
    assert desk.ran == 1


@in_loop
async def test_a_client_that_loses_patience():
    """It gives up and cancels the call; the tool runs on, and the next call with the key gets its result."""
    desk, going = Desk(policy=Policy(in_flight="wait")), asyncio.Event()
    desk.does = going.wait
    wish = {"order": "o-1", KEY: "k-1"}
    async with Client(desk.server) as client:
        lost = asyncio.create_task(client.call_tool("refund", wish))
        await eventually(lambda: desk.ran)
        lost.cancel()
        await asyncio.wait({lost})
        going.set()
        again = await client.call_tool("refund", wish)
    assert lost.cancelled()
    assert (again.structured_content, is_replay(again), desk.ran) == ({"order": "o-1", "cents": 5}, True, 1)


@in_loop
async def test_an_outcome_that_nobody_knows():
    """The process of the first call is gone: it is not run again, and the agent is warned of a new key."""
    desk = Desk(policy=Policy(lease="1s"))
    gone = asyncio.Event()
    desk.does = gone.wait
    lost = asyncio.create_task(desk.call())
    await eventually(lambda: desk.ran)
    desk.clock.now_ms += 2_000
    refused = await desk.call()
    assert (problem(refused), desk.ran) == (("outcome-unknown", False), 1)
    assert f"Do not call it with a new {KEY}" in said(refused)[1]
    gone.set()
    await lost


@in_loop
async def test_a_tool_that_fails(caplog):
    """The log has the reason and the agent has not; the same key runs nothing more."""
    desk = Desk()
    desk.does = raises(ZeroDivisionError("a secret"))
    first, again = await desk.call(), await desk.call()
    assert (problem(first), problem(again)) == (("handler-failed", True), ("handler-failed", False))
    assert "may or may not have taken effect" in said(first)[1]
    assert "a secret" not in said(first)[1] + said(again)[1]
    assert ("a secret" in caplog.text, "k-1" in caplog.text, desk.ran) == (True, False, 1)


@pytest.mark.parametrize(
    ("error", "reason"), [(NothingSent("of the log"), ""), (NotReached("the bank is shut"), "shut")]
)
@in_loop
async def test_a_failure_before_any_effect(error, reason):
    """It is declared: a further call runs. A text for the agent reaches it."""
    desk = Desk({"not_done": [NothingSent, NotReached]})
    desk.does = raises(error)
    refused = await desk.call()
    assert problem(refused) == ("handler-failed", True)
    assert ("Nothing was done" in said(refused)[1], reason in said(refused)[1]) == (True, True)
    assert "of the log" not in said(refused)[1]
    desk.does = lambda: None
    assert ((await desk.call()).is_error, desk.ran) == (False, 2)


@in_loop
async def test_arguments_that_do_not_fit_leave_no_record():
    """They may be mended under the same key."""
    desk = Desk()
    assert (await desk.call(cents="many")).is_error
    assert (await desk.call(None)).is_error
    assert desk.ran == 0
    assert not (await desk.call()).is_error


@in_loop
async def test_the_store_is_away():
    """Nothing runs, and the agent is told that the same call may be made again."""

    class Away(MemoryStore):
        def open(self, secret=None):
            raise StoreUnavailable

    desk = Desk(store=Away())
    assert (problem(await desk.call()), desk.ran) == (("store-unavailable", True), 0)


@in_loop
async def test_a_failure_of_another_operation_is_one_of_the_tool():
    """What a tool calls may be protected too: its refusals are not those of this key."""
    desk = Desk()
    desk.does = raises(OperationInProgress(7))
    assert problem(await desk.call()) == ("handler-failed", True)


@in_loop
async def test_a_failure_that_the_protocol_has_a_word_for():
    """It goes to the client as it is; where that means that nothing was done, the next call runs."""
    desk = Desk()
    url = ElicitRequestURLParams(message="Sign in", url="https://shop.example", elicitation_id="e-1")
    desk.does = raises(UrlElicitationRequiredError([url]))
    assert (await desk.call()).message == "URL elicitation required"
    desk.does = raises(MCPError(-32_000, "broken"))
    assert (await desk.call()).message == "broken"
    desk.does = lambda: None
    assert (problem(await desk.call()), desk.ran) == (("handler-failed", False), 2)


# --- keys and accounts ----------------------------------------------------------------------------


@in_loop
async def test_a_key_of_the_host():
    """In `_meta`; the tool looks as ever, and is not said to be idempotent by its arguments."""
    desk = Desk({"key": Meta()})
    first, again = [await desk.call(None, meta={"idempotency-key": "k-1"}) for _ in range(2)]
    assert (is_replay(first), is_replay(again), desk.ran) == (False, True, 1)
    assert problem(await desk.call(None)) == ("key-missing", False)
    async with Client(desk.server) as client:
        ((shown),) = (await client.list_tools()).tools
    assert (KEY in shown.input_schema["properties"], hints(shown)) == (False, {"idempotent_hint": False})


@pytest.mark.parametrize("key", ["refund-{order}", lambda order, cents: f"refund-{order}"])
@in_loop
async def test_a_key_that_is_made_of_the_arguments(key):
    """The same order is refunded once."""
    desk = Desk({"key": key})
    assert [is_replay(await desk.call(None)) for _ in range(2)] == [False, True]
    assert problem(await desk.call(None, cents=9)) == ("key-reused", False)
    await desk.call(None, order="o-2")
    assert desk.ran == 2


@in_loop
async def test_a_key_that_cannot_be_made():
    """Nothing runs: by a mistake in a format, and by one in a function."""
    for key, code in (
        ("{nothing}", "call-invalid"),
        (lambda **_: 1 / 0, "handler-failed"),
        (lambda **_: "", "key-missing"),
    ):
        desk = Desk({"key": key})
        refused = await desk.call(None)
        assert (problem(refused)[0], "Nothing was" in said(refused)[1], desk.ran) == (code, True, 0)


@asynccontextmanager
async def signed_in(**token):
    """As by a server that has checked an access token."""
    user = AuthenticatedUser(AccessToken(**{"token": "t", "client_id": "c", "scopes": [], **token}))
    before = auth_context_var.set(user)
    yield
    auth_context_var.reset(before)


@in_loop
async def test_a_key_belongs_to_the_user():
    """Whatever token and client they come with; who is nobody is refused, and so is a client without a user."""
    desk = Desk(scope="user")
    assert problem(await desk.call()) == ("scope-missing", False)
    async with signed_in():
        assert problem(await desk.call()) == ("scope-missing", False)
    replays = []
    for token in ({"subject": "ann"}, {"subject": "ann", "token": "new", "client_id": "other"}, {"subject": "bob"},
                  {"subject": "ann", "claims": {"iss": "elsewhere"}}):  # fmt: skip
        async with signed_in(**token):
            replays.append(is_replay(await desk.call()))
    assert (replays, desk.ran) == ([False, True, False, False], 3)


@in_loop
async def test_an_account_by_a_function():
    """Of the request's context, also for asyncio; one that gives none, or fails, runs nothing."""

    async def account(context):
        if context.meta.get("account") == BROKEN:
            raise ZeroDivisionError
        return context.meta.get("account")

    desk = Desk(scope=account)
    answers = {None: "scope-missing", "": "scope-missing", 7: "call-invalid"}
    for name, code in (*answers.items(), (BROKEN, "handler-failed")):
        refused = await desk.call(meta={} if name is None else {"account": name})
        assert (problem(refused)[0], "Nothing was" in said(refused)[1], desk.ran) == (code, True, 0)
    replays = [is_replay(await desk.call(meta={"account": name})) for name in ("ann", "bob", "ann")]
    assert replays == [False, False, True]


@pytest.mark.parametrize("scope", ["", "users", "account:", None])
def test_a_scope_that_is_none(scope):
    """Refused when the door is made; with everything else that is wrong."""
    with pytest.raises(ConfigurationError, match=r"scope is .*"):
        Idempotency(store="memory://", scope=scope)


def test_a_tool_that_cannot_be():
    """Its argument has the key's name, or its name is taken."""
    idempotency, server = Idempotency(store=MemoryStore(), scope="account:me"), MCPServer("desk")

    def refund(idempotency_key: str) -> str:
        return idempotency_key

    with pytest.raises(ConfigurationError, match="give the key another name"):
        idempotency.tool(server)(refund)
    idempotency.tool(server, "named", key=Argument("attempt_key"))(refund)
    with pytest.raises(ConfigurationError, match="enrolled already"):
        idempotency.tool(server, "named", key=Argument("attempt_key"))(refund)


# --- what a tool may do ---------------------------------------------------------------------------


@in_loop
async def test_a_tool_that_asks_first():
    """By either of the protocol's ways: no record is left by the question, and the answer runs it once."""
    server, ran = MCPServer("desk"), []
    idempotency = Idempotency(store=MemoryStore(), scope="account:me")
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"]}
    question = ElicitRequest(params=ElicitRequestFormParams(message="Sure?", requested_schema=schema))

    @idempotency.tool(server)
    async def refund(order: str, context: Context) -> str | InputRequiredResult:
        if not context.input_responses:
            return InputRequiredResult(input_requests={"sure": question})
        ran.append(order)
        return f"refunded {order}"

    async def agree(context, params):
        return ElicitResult(action="accept", content={"sure": True})

    async with Client(server, elicitation_callback=agree) as client:
        results = [await client.call_tool("refund", {"order": "o-1", KEY: "k-1"}) for _ in range(2)]
    assert [said(result)[1] for result in results] == ["refunded o-1"] * 2
    assert ([is_replay(result) for result in results], ran) == ([False, True], ["o-1"])


@in_loop
async def test_a_tool_that_commits_its_record(tmp_path):
    """Its work and its record are one commit, on a thread of its own; what it recorded is its result."""
    file = tmp_path / "desk.db"
    idempotency = Idempotency(store=f"sqlite:///{file}", scope="account:me", policy=Policy(transactional=True))
    server = MCPServer("desk")

    @idempotency.tool(server)
    def refund(order: str) -> Refund:
        connection = sqlite3.connect(file)
        try:
            with connection:
                connection.execute("CREATE TABLE IF NOT EXISTS refunds (name TEXT)")
                connection.execute("INSERT INTO refunds VALUES (?)", [order])
                operation().complete_within(connection, {"order": order, "cents": 7})
        finally:
            connection.close()
        raise ZeroDivisionError

    async with Client(server) as client:
        first, again = [await client.call_tool("refund", {"order": "o-1", KEY: "k-1"}) for _ in range(2)]
    assert first.structured_content == again.structured_content == {"order": "o-1", "cents": 7}
    assert said(first) == said(again)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM refunds").fetchone() == (1,)
    connection.close()


@in_loop
async def test_the_low_level_server():
    """Enrolled tools run once, and do not see the key; others are as ever."""
    ran = []
    idempotency = Idempotency(store=MemoryStore(), scope="account:me")
    idempotency.enrol("refund")

    async def list_tools(context, params):
        schema = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
        return ListToolsResult(tools=[Tool(name=name, input_schema=schema) for name in ("refund", "look")])

    async def call_tool(context, params):
        ran.append((params.name, params.arguments))
        if not params.arguments and (now := current_operation()) is not None:
            now.not_run()
        return CallToolResult(content=[TextContent(type="text", text=json.dumps(params.arguments))])

    server = Server("desk", on_list_tools=idempotency.listing(list_tools), on_call_tool=idempotency.calling(call_tool))
    async with Client(server) as client:
        refund, look = (await client.list_tools()).tools
        assert (refund.input_schema["required"], look.input_schema["required"]) == (["order", KEY], ["order"])
        assert (hints(refund), hints(look)) == ({"idempotent_hint": True}, None)
        for name in ("refund", "refund", "look", "look"):
            result = await client.call_tool(name, {"order": "o-1", KEY: "k-1"} if name == "refund" else {})
        assert problem(await client.call_tool("refund", {"order": "o-1"})) == ("key-missing", False)
        for _ in range(2):
            await client.call_tool("refund", {KEY: "k-2"})
    assert said(result)[1] == "{}"
    assert ran == [("refund", {"order": "o-1"}), ("look", {}), ("look", {}), ("refund", {}), ("refund", {})]

"""The door of tools: a tool of a Model Context Protocol server runs once for each key, however often it is called."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import pydantic_core
from mcp import MCPError, UrlElicitationRequiredError
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool
from pydantic import Field

from retrysafe.errors import CallerError, ConfigurationError
from retrysafe.observe import Observer
from retrysafe.protocol.policy import Policy
from retrysafe.server import tool_answers
from retrysafe.server.function import once
from retrysafe.server.settings import Faults, encryption_of
from retrysafe.server.tool_answers import ResultCodec
from retrysafe.server.tool_key import ABOUT_KEYS, KEY_LENGTH_MAX, Argument, KeyFrom, key_in, truthful, with_key, wording
from retrysafe.stores.contract import Store
from retrysafe.stores.location import open_store

F = TypeVar("F", bound=Callable[..., Any])

Request = ServerRequestContext[Any, Any]
Result = CallToolResult | InputRequiredResult
Work = Callable[[dict[str, Any]], Awaitable[Result]]
Scope = Callable[[Request], str | None | Awaitable[str | None]]
Calling = Callable[[Request, CallToolRequestParams], Awaitable[Result]]
Listing = Callable[[Request, PaginatedRequestParams | None], Awaitable[ListToolsResult]]

_log = logging.getLogger("retrysafe")

_OUR_CONTEXT = "retrysafe_context"
_ACCOUNT = "account:"


# --- whose key it is ------------------------------------------------------------------------------


def _scope_of(said: str | Scope) -> Scope:
    """The function behind the setting `scope`.

    Raises:
        ConfigurationError: it is none of what it may be.
    """
    if callable(said):
        return said
    if said == "user":
        return _user
    if isinstance(said, str) and said.startswith(_ACCOUNT) and (name := said.removeprefix(_ACCOUNT).strip()):
        return lambda _: name
    fault = (
        f'scope is {said!r}; it must be "user", "account:NAME" where all callers are one account, as over stdio, '
        "or a function of the request's context"
    )
    raise ConfigurationError([fault])


def _user(_: Request) -> str | None:
    """The subject of the access token, with who issued it; None without one, so that the call is refused (R17).

    The client and the session are no accounts: another of either may make the next attempt (R16).
    """
    token = get_access_token()
    if token is None or token.subject is None:
        return None
    return json.dumps([(token.claims or {}).get("iss"), token.subject])


# --- one tool -------------------------------------------------------------------------------------


class _InputRequiredError(Exception):
    """The tool asks the client for something before it does anything: the call that brings it runs."""

    def __init__(self, result: InputRequiredResult) -> None:
        super().__init__()
        self.result = result


def _complete(result: Result) -> CallToolResult:
    """The result of a tool that has done its work.

    Raises:
        _InputRequiredError: it has not begun to.
    """
    if isinstance(result, InputRequiredResult):
        raise _InputRequiredError(result)
    return result


class _Attempt:
    """One call's turn at a tool: whether it came to run, and how it failed."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.arguments: dict[str, Any] = {}
        self.ran = False
        self.failure: Exception | None = None

    async def __call__(self) -> CallToolResult:
        self.ran = True
        try:
            return _complete(await self._work(self.arguments))
        except Exception as error:
            self.failure = error
            raise


class _OnceTool:
    """A tool that runs once for each key.

    Args:
        name: of the tool.
        key: where the key is.
        scope: whose it is.
        not_done: exceptions after which nothing has happened.
        settings: of `once`.
        convert: from what the tool returns to its result.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what a tool consists of here
        self,
        name: str,
        key: KeyFrom,
        scope: Scope,
        not_done: Sequence[type[Exception]],
        settings: dict[str, Any],
        convert: Callable[[Any], CallToolResult],
    ) -> None:
        self.key = key
        self.not_done = (*not_done, UrlElicitationRequiredError, _InputRequiredError)
        self._name = name
        self._scope = scope
        self._wording = wording(key)

        @once(
            key=lambda key, *_: key,
            scope=lambda _, account, *__: account,
            name=f"tools/{name}",
            compare=("arguments",),
            not_done=self.not_done,
            codec=ResultCodec(convert),
            **settings,
        )
        async def call(key: str, account: str, arguments: dict[str, Any], attempt: _Attempt) -> CallToolResult:  # noqa: ARG001 - they are for `once`
            return await attempt()

        self._call = call

    async def run(self, request: Request, arguments: dict[str, Any], work: Work) -> Result:
        """One call.

        Args:
            request: of it.
            arguments: as data, the key among them if that is one.
            work: runs the tool, given its arguments without the key.
        """
        attempt = _Attempt(work)
        try:
            key, attempt.arguments = key_in(self.key, request.meta or {}, arguments)
            if not key:
                return tool_answers.key_missing(self._wording).result()
            account = await self._account(request)
            if account is None:
                return tool_answers.NO_ACCOUNT.result()
            result = await self._call(key, account, attempt.arguments, attempt)
        except _InputRequiredError as asked:
            return asked.result
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the agent must hear what to do now
            return self._failed(error, attempt)
        return result if attempt.ran else tool_answers.replayed(result)

    async def _account(self, request: Request) -> str | None:
        given = self._scope(request)
        account = await given if inspect.isawaitable(given) else given
        if account is not None and not isinstance(account, str):
            raise CallerError(f"scope= gave a {type(account).__name__}; it must give a string, or None")
        return account or None

    def _failed(self, error: Exception, attempt: _Attempt) -> CallToolResult:
        """What the agent hears of an exception: the engine's, or the tool's own."""
        if error is attempt.failure:
            if isinstance(error, self.not_done):
                return tool_answers.not_done(
                    self._wording, f"{error} " if isinstance(error, ToolError) else ""
                ).result()
        elif not (attempt.ran and isinstance(error, CallerError)):  # its result is no data: it has run
            refusal = tool_answers.refusal_of(error, self._wording)
            if refusal is not None:
                return refusal.result()
        _log.error("tool %s failed", self._name, exc_info=error)
        return (tool_answers.failed if attempt.ran else tool_answers.not_begun)(self._wording).result()


# --- the tools of a server ------------------------------------------------------------------------


class Idempotency:
    """Makes tools of a Model Context Protocol server run once for each operation, however often they are called.

    A further call with a key gets the result of the first: its content, its structured content, and whether it was an
    error. `operation()` inside a tool is as in an HTTP handler.

    Args:
        store: where the records are: a URL such as `sqlite:///tools.db`, or a `Store`.
        scope: whose key it is: `"user"`, the subject of the access token; `"account:NAME"` where all callers are one
            account, as over stdio; or a function of the request's context that gives the account, or None, and may be a
            coroutine function. There is no default, and a call of nobody is refused (contract R15-R17).
        policy: of tools that say nothing else: lease, lifetime, recovery, `in_flight` and the like.
        namespace: of this deployment; environments that share a store differ in it (R20).
        secret: that keys are digested with; without one the store keeps its own (R21).
        encryption_keys: encrypts results at rest (R110). Needs the extra `crypto`.
        observer: told of what happens; the default logs.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own, by name
        self,
        *,
        store: str | Store,
        scope: str | Scope,
        policy: Policy | None = None,
        namespace: str = "default",
        secret: str | bytes | None = None,
        encryption_keys: str | bytes | Sequence[str | bytes] | None = None,
        observer: Observer | None = None,
    ) -> None:
        faults = Faults()
        opened: Store = faults.collect(lambda: open_store(store) if isinstance(store, str) else store)
        self._scope: Scope = faults.collect(lambda: _scope_of(scope))
        faults.collect(lambda: encryption_of(encryption_keys))
        faults.raise_any()
        self._policy = policy or Policy()
        self._settings: dict[str, Any] = {
            "store": opened,
            "namespace": namespace,
            "secret": secret,
            "encryption_keys": encryption_keys,
            "observer": observer,
        }
        self._tools: dict[str, _OnceTool] = {}

    def tool(  # noqa: PLR0913 - as above
        self,
        server: MCPServer[Any],
        name: str | None = None,
        *,
        key: KeyFrom = Argument(),  # noqa: B008 - a value, which nobody changes
        policy: Policy | None = None,
        not_done: Sequence[type[Exception]] = (),
        annotations: ToolAnnotations | None = None,
        **registration: Any,
    ) -> Callable[[F], F]:
        """In place of `@server.tool()`: the tool runs once for each key.

        Args:
            server: that it is a tool of.
            name: of the tool; the function's by default. Its records stand under it.
            key: where the key is: `Argument()`, `Meta()`, or a format over the arguments or a function of them.
            policy: of this tool.
            not_done: exceptions after which nothing has happened: a further call runs.
            annotations: of the tool; `idempotent_hint` is set to what is true.
            registration: title, description, icons, meta and structured_output, as for `server.tool()`.

        Raises:
            ConfigurationError: the function cannot be such a tool.
        """

        def register(function: F) -> F:
            described = Tool.from_function(function, name=name, structured_output=registration.get("structured_output"))
            convert = described.fn_metadata.convert_result
            once_tool = self._enrol(described.name, key, policy, not_done, lambda given: _complete(convert(given)))
            calling = _calling(function, described, once_tool)
            given = {"description": described.description, **registration}
            server.add_tool(calling, name=described.name, annotations=truthful(annotations, key), **given)
            return function

        return register

    # --- for the low-level server -----------------------------------------------------------------

    def enrol(
        self,
        name: str,
        *,
        key: KeyFrom = Argument(),  # noqa: B008 - a value, which nobody changes
        policy: Policy | None = None,
        not_done: Sequence[type[Exception]] = (),
    ) -> None:
        """Say that a tool of a low-level `Server` runs once for each key; `listing` and `calling` see to it.

        Args:
            name: of the tool.
            key: where the key is, as for `tool`.
            policy: of this tool.
            not_done: exceptions after which nothing has happened.
        """
        self._enrol(name, key, policy, not_done, CallToolResult.model_validate)

    def listing(self, list_tools: Listing) -> Listing:
        """For `on_list_tools=` of a low-level server: the schemas of enrolled tools gain the key."""

        async def listing(request: Request, params: PaginatedRequestParams | None) -> ListToolsResult:
            listed = await list_tools(request, params)
            return listed.model_copy(update={"tools": [self._described(tool) for tool in listed.tools]})

        return listing

    def calling(self, call_tool: Calling) -> Calling:
        """For `on_call_tool=` of a low-level server: enrolled tools run once for each key, which they do not see.

        What refuses a call before it does anything says `operation().not_run()`, so that it leaves no record.
        """

        async def calling(request: Request, params: CallToolRequestParams) -> Result:
            once_tool = self._tools.get(params.name)
            if once_tool is None:
                return await call_tool(request, params)

            async def work(arguments: dict[str, Any]) -> Result:
                return await call_tool(request, params.model_copy(update={"arguments": arguments}))

            return await once_tool.run(request, params.arguments or {}, work)

        return calling

    def _enrol(
        self,
        name: str,
        key: KeyFrom,
        policy: Policy | None,
        not_done: Sequence[type[Exception]],
        convert: Callable[[Any], CallToolResult],
    ) -> _OnceTool:
        if name in self._tools:
            raise ConfigurationError([f"the tool {name} is enrolled already; each needs a name of its own"])
        settings = {**self._settings, "policy": policy or self._policy}
        self._tools[name] = _OnceTool(name, key, self._scope, not_done, settings, convert)
        return self._tools[name]

    def _described(self, tool: ListedTool) -> ListedTool:
        once_tool = self._tools.get(tool.name)
        if once_tool is None:
            return tool
        changes: dict[str, Any] = {"annotations": truthful(tool.annotations, once_tool.key)}
        if isinstance(once_tool.key, Argument):
            changes["input_schema"] = with_key(tool.input_schema, once_tool.key.name)
        return tool.model_copy(update=changes)


def _calling(function: Callable[..., Any], described: Tool, once_tool: _OnceTool) -> Callable[..., Awaitable[Any]]:
    """The function that the server calls: it has the arguments of the tool, the key, and the context.

    Raises:
        ConfigurationError: the tool has an argument of the key's name.
    """
    signature = inspect.signature(function, eval_str=True)
    parameters = {name: it.replace(kind=it.KEYWORD_ONLY) for name, it in signature.parameters.items()}
    context = described.context_kwarg or _OUR_CONTEXT
    gained: dict[str, Any] = {} if described.context_kwarg else {context: Context}
    if isinstance(once_tool.key, Argument):
        name = once_tool.key.name
        if name in parameters:
            fault = f"{described.name} has an argument {name} of its own: give the key another name, key=Argument(...)"
            raise ConfigurationError([fault])
        gained[name] = Annotated[str, Field(description=ABOUT_KEYS, min_length=1, max_length=KEY_LENGTH_MAX)]

    async def calling(**given: Any) -> Result:
        to_pass = {name: given[name] for name in parameters}
        own = {name: it for name, it in given.items() if name != context and name not in described.resolved_params}
        arguments: dict[str, Any] = pydantic_core.to_jsonable_python(own)

        async def work(_: dict[str, Any]) -> Result:
            return await _ran(function, described, to_pass, once_tool.not_done)

        return await once_tool.run(given[context].request_context, arguments, work)

    gains = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=it) for name, it in gained.items()]
    whole = inspect.Signature([*parameters.values(), *gains], return_annotation=signature.return_annotation)
    calling.__signature__ = whole  # type: ignore[attr-defined]  # what a function has that is not as it is written
    calling.__annotations__ = _annotations(whole)
    calling.__name__ = described.name
    return calling


def _annotations(signature: inspect.Signature) -> dict[str, Any]:
    found = {name: it.annotation for name, it in signature.parameters.items() if it.annotation is not it.empty}
    if signature.return_annotation is not signature.empty:
        found["return"] = signature.return_annotation
    return found


async def _ran(
    function: Callable[..., Any], described: Tool, arguments: dict[str, Any], not_done: tuple[type[Exception], ...]
) -> Result:
    """What the tool comes to; a failure that it has foreseen is a result."""
    convert = described.fn_metadata.convert_result
    unforeseen: tuple[type[Exception], ...] = (*not_done, UnexpectedToolError)
    try:
        result = convert(await described.fn_metadata.call_fn(function, described.is_async, arguments))
    except unforeseen:
        raise
    except (ToolError, ResourceError) as error:
        text = f"Error executing tool {described.name}: {error}"
        return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
    return convert(result)  # the server will: what it refuses then is to be known before it is recorded

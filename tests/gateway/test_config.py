"""Settings from options, environment and file: their order, and everything wrong told at once, with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrysafe.errors import ConfigurationError
from retrysafe.gateway.config import POLICY_OPTIONS, SETTINGS, Address, Value, build, build_store, effective, read
from retrysafe.gateway.settings_file import SettingsFile, find
from retrysafe.protocol.policy import Policy

ENOUGH = {"upstream": "http://127.0.0.1:9000", "store": "memory://", "scope": "header:X-Account-Id"}


def given_by(origin, **values):
    """Settings as somebody gave them."""
    return {name: Value(value, origin) for name, value in values.items()}


def written(tmp_path, text, name="retrysafe.toml"):
    """A settings file."""
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return SettingsFile(path)


def faults(options=None, policy=None, file=None, *, enough=True):
    """What is wrong with settings, without the folder of the file."""
    given = {**(given_by("test", **ENOUGH) if enough else {}), **(options or {})}
    with pytest.raises(ConfigurationError) as raised:
        build(read(given, policy or {}, file))
    return [
        fault.rpartition("/retrysafe.toml")[2] if "retrysafe.toml:" in fault else fault for fault in raised.value.faults
    ]


WHOLE = """
upstream = "http://127.0.0.1:9000/"
listen = "[::1]:8443"
store = "sqlite:///orders.db"
scope = "authorization"
namespace = "staging"
authorize = "/may-read"
status_path = "/idempotency/requests"
contract_path = "/.well-known/idempotency-contract"
forwarded = "append"
host = "upstream"
upstream_timeout = "90s"
upstream_connect_timeout = "250ms"
upstream_keepalive = "0s"
drain = "1m"
health_listen = "0.0.0.0:8081"
log_level = "info"

[policy]
lease = "30s"
required = true
methods = ["POST", "PUT"]

[routes."POST /orders/{id}/refund"]
lifetime = "7d"
required = false

[routes."POST /search"]
enrolled = false

[routes."POST /plain"]
enrolled = true
"""


def test_a_whole_file(tmp_path):
    """Every setting from a file; routes have what the policy for all has, but for what they say themselves."""
    config = build(read({}, {}, written(tmp_path, WHOLE)))
    assert config.upstream == "http://127.0.0.1:9000"
    assert (config.listen, config.health_listen) == (Address("::1", 8443), Address("0.0.0.0", 8081))
    assert str(config.listen) == "[::1]:8443"
    assert (config.store, config.scope, config.namespace) == ("sqlite:///orders.db", "authorization", "staging")
    assert (config.authorize, config.forwarded, config.host) == ("/may-read", "append", "upstream")
    assert (config.status_path, config.contract_path) == (
        "/idempotency/requests",
        "/.well-known/idempotency-contract",
    )
    assert (config.upstream_timeout_ms, config.upstream_connect_timeout_ms) == (90_000, 250)
    assert (config.upstream_keepalive_ms, config.drain_ms, config.log_level) == (0, 60_000, "info")
    assert config.policy == Policy(lease="30s", required=True, methods=("POST", "PUT"))
    assert config.routes == {
        "POST /orders/{id}/refund": Policy(lease="30s", methods=("POST", "PUT"), lifetime="7d"),
        "POST /search": None,
        "POST /plain": config.policy,
    }


def test_the_least_that_is_needed():
    """Three settings; the rest has defaults, and they are those that the help shows."""
    config = build(read(given_by("test", **ENOUGH), {}, None))
    for setting in SETTINGS:
        if setting.default is not None:
            assert getattr(config, setting.field) == setting.parse(setting.default)
    assert (config.policy, config.routes, config.secret) == (Policy(), {}, None)


def test_options_go_before_the_file(tmp_path):
    """What was given by option or environment is laid over what the file says, policy options too."""
    file = written(tmp_path, WHOLE)
    settings = read(given_by("--listen", listen="127.0.0.1:1"), given_by("--policy", lease="5s"), file)
    config = build(settings)
    assert (config.listen, config.namespace) == (Address("127.0.0.1", 1), "staging")
    assert config.policy == Policy(lease="5s", required=True, methods=("POST", "PUT"))
    origins = {name: origin.rpartition("/")[2] for name, _, origin in effective(settings)}
    assert origins["listen"] == "--listen"
    assert origins["namespace"] == "retrysafe.toml:6"
    assert origins["policy.lease"] == "--policy"
    assert origins["policy.required"] == "retrysafe.toml:21"
    assert origins["policy.lifetime"] == "default"
    assert origins['routes."POST /search".enrolled'] == "retrysafe.toml:29"


def test_policy_options_as_text():
    """Text becomes the type of the option."""
    text = given_by("--policy", required="true", key_length_max="36", methods="POST, PUT", lease="5s", recovery="rerun")
    policy = build(read(given_by("test", **ENOUGH), text, None)).policy
    assert policy == Policy(required=True, key_length_max=36, methods=("POST", "PUT"), lease="5s", recovery="rerun")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("required", "yes", "must be true or false"),
        ("key_length_max", "many", "must be a whole number"),
        ("key_length_max", "-1", "must be a whole number"),
        ("leese", "5s", "leese is no policy option; did you mean lease?"),
        ("classify", "f", "classify is no policy option"),
        ("transactional", "true", "a gateway has no handler"),
        ("effects", "declared", "a gateway has no handler"),
        ("lease", "soon", "is not a duration"),
        ("methods", "GET", "must be an upper-case method"),
    ],
)
def test_faulty_policy_options(name, value, words):
    """Each fault says which option, and where it came from."""
    (fault,) = faults(policy=given_by("--policy", **{name: value}))
    assert fault.startswith("--policy: ")
    assert words in fault


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("upstream", "127.0.0.1:9000", "it must be like"),
        ("upstream", "ftp://127.0.0.1", "it must be like"),
        ("upstream", "http://me:secret@127.0.0.1", "without user and password"),
        ("upstream", "http://127.0.0.1/base", "must end after the port"),
        ("upstream", "http://127.0.0.1:99999", "out of range"),
        ("upstream", "http://a..b:80", "its host can be no name"),
        ("upstream", f"http://{'a' * 300}", "its host can be no name"),
        ("upstream", "http://" + ".".join(["a" * 60] * 5), "its host can be no name"),
        ("upstream", "http://a b", "its host can be no name"),
        ("upstream", "http://xn--\u00e4", "its host can be no name"),
        ("upstream", "http://[fe80::1%25eth0]:80", "its host can be no name"),
        ("upstream", "http://[v1.x]:80", "its host can be no name"),
        ("listen", "8080", "must be HOST:PORT"),
        ("listen", "127.0.0.1:66000", "must be HOST:PORT"),
        ("listen", "::1:80", "must be HOST:PORT"),
        ("store", "mongodb://x", "no store has the scheme"),
        ("scope", "someone", "scope is 'someone'"),
        ("scope", "user", "needs an application in the same process"),
        ("namespace", "", "must not be empty"),
        ("authorize", "may", "must be a path"),
        ("status_path", "/a b", "must be a path without escapes"),
        ("contract_path", "/%61", "must be a path without escapes"),
        ("forwarded", "trust", "must be one of replace, append"),
        ("drain", "long", "is not a duration"),
        ("upstream_timeout", "0s", "at least 1 ms"),
        ("log_level", "loud", "must be one of"),
    ],
)
def test_faulty_settings(name, value, words):
    """Each fault says where it was set, what was seen and what to do."""
    (fault,) = faults(given_by("RETRYSAFE_X", **{name: value}))
    assert fault.startswith("RETRYSAFE_X: ")
    assert words in fault


@pytest.mark.parametrize(
    ("written_as", "origin"),
    [
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("https://[2001:DB8:0::1]/", "https://[2001:db8::1]"),
        ("http://api_1.internal.:80", "http://api_1.internal.:80"),
        ("http://M\u00fcnchen.example:80", "http://xn--mnchen-3ya.example:80"),
        ("http://127.0.0.1:", "http://127.0.0.1"),
    ],
)
def test_addresses_of_upstreams(written_as, origin):
    """IPv6 in brackets, names in ASCII, a port only if there is one."""
    options = {**given_by("test", **ENOUGH), **given_by("test", upstream=written_as)}
    assert build(read(options, {}, None)).upstream == origin


def test_missing_settings_are_told_with_every_way_to_give_them():
    """An option, a variable, a line of a file."""
    said = faults(enough=False)
    assert [fault.split(" ")[0] for fault in said] == ["upstream", "store", "scope"]
    assert "--upstream, RETRYSAFE_UPSTREAM, or upstream in a settings file" in said[0]


FAULTY = """# line 1
upstream = 9000
lisen = "127.0.0.1:1"
secret = "do not write it here"

[policy]
lease = "soon"
leese = "5s"
on_receipt = [
  "refuse",
]

[routes."POST /a"]
lifetime = "soon"
required = 1

[routes."GET /b"]

[routes."POST /c"]
enrolled = false
required = true

[routes."POST /d"]
enrolled = "no"

[routes]
"POST /e" = 5
"""


def test_everything_wrong_in_a_file_is_told_at_once_by_line(tmp_path):
    """Each with its line; nothing twice; the secret not at all."""
    # a table may be named once only, so the last fault stands in a file of its own
    said = faults(file=written(tmp_path, FAULTY.partition("[routes]")[0]))
    assert sorted(int(fault.split(":")[1]) for fault in said) == [2, 3, 4, 7, 8, 9, 14, 15, 17, 20, 24]
    whole = "\n".join(said)
    assert ":3: lisen is no setting; did you mean listen?" in whole
    assert ":8: leese is no policy option; did you mean lease?" in whole
    assert ':14: routes."POST /a".lifetime: "soon" is not a duration' in whole
    assert "do not write it here" not in whole
    (fault,) = faults(file=written(tmp_path, '[routes]\n\n"POST /e" = 5\n'))
    assert fault.startswith(':3: routes."POST /e" is 5')


def test_a_fault_of_the_policy_is_not_repeated_by_each_route(tmp_path):
    """A route inherits the fault, and it is told once."""
    (fault,) = faults(file=written(tmp_path, '[policy]\nlease = "soon"\n[routes."POST /a"]\nrequired = true\n'))
    assert fault.startswith(":2: policy.lease")


def test_a_fault_between_two_options_of_a_route(tmp_path):
    """What does not fit together is told where one of the two was set."""
    (fault,) = faults(
        file=written(
            tmp_path, '[policy]\nlease = "20m"\nexecution_max = "1h"\n[routes."POST /a"]\nexecution_max = "1m"\n'
        )
    )
    assert fault.startswith(':5: routes."POST /a".execution_max is shorter than')


@pytest.mark.parametrize("text", ["upstream = ", 'policy = 5\nroutes = "x"\n'])
def test_what_is_no_table_or_no_toml(tmp_path, text):
    """Told, and not a traceback."""
    with pytest.raises(ConfigurationError) as raised:
        build(read({}, {}, written(tmp_path, text)))
    assert all("retrysafe.toml" in fault for fault in raised.value.faults if "is not set" not in fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("\ntool = 3\n", ":2: tool must be a table"),
        ("[[tool]]\n", ":1: tool must be a table"),
        ("[tool]\nretrysafe = 5\n", ":2: retrysafe must be a table"),
        ("[[tool.retrysafe]]\nsecret = 'hush'\n", ":1: retrysafe must be a table"),
    ],
)
def test_what_is_no_table_in_a_shared_file(tmp_path, text, fault):
    """Told with file and line, and without its value."""
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError) as raised:
        find(None, tmp_path)
    assert raised.value.faults == (f"{tmp_path}/pyproject.toml{fault}; write [tool.retrysafe]",)


def test_the_secret_comes_from_a_file_or_the_environment(tmp_path):
    """It is read, checked, and never shown."""
    (tmp_path / "secret").write_bytes(b"0123456789abcdef\n")
    file = written(tmp_path, f'secret_file = "{tmp_path}/secret"\n')
    settings = read(given_by("test", **ENOUGH), {}, file)
    assert build(settings).secret == b"0123456789abcdef"
    assert build_store(settings) == ("memory://", b"0123456789abcdef")
    settings = read({**given_by("test", **ENOUGH), **given_by("RETRYSAFE_SECRET", secret="x" * 20)}, {}, file)
    assert build(settings).secret == b"x" * 20
    assert "x" * 20 not in str(effective(settings)) + repr(build(settings))
    (fault,) = faults(given_by("RETRYSAFE_SECRET", secret="short"))
    assert "fewer than 16 bytes" in fault
    assert "short" not in fault
    (fault,) = faults(given_by("--secret-file", secret_file=f"{tmp_path}/none"))
    assert "No such file" in fault


def test_the_store_alone(tmp_path):
    """Commands that need the store only do not ask for more."""
    assert build_store(read(given_by("--store", store="memory://"), {}, None)) == ("memory://", None)
    with pytest.raises(ConfigurationError, match="store is not set"):
        build_store(read({}, {}, None))


# --- which file, and which line -------------------------------------------------------------------


def test_which_file_is_used(tmp_path):
    """The one that was named, else the project's own, else the shared one if it has our table, else none."""
    assert find(None, tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert find(None, tmp_path) is None
    (tmp_path / "pyproject.toml").write_text('[project]\n[tool.retrysafe]\nstore = "memory://"\n')
    shared = find(None, tmp_path)
    assert shared is not None
    assert shared.table == {"store": "memory://"}
    assert shared.where("store").endswith("pyproject.toml:3")
    (tmp_path / "retrysafe.toml").write_text('store = "sqlite:///a"\n')
    own = find(None, tmp_path)
    assert own is not None
    assert own.table == {"store": "sqlite:///a"}
    named = find(tmp_path / "pyproject.toml", tmp_path)
    assert named is not None
    assert named.table == {"store": "memory://"}
    with pytest.raises(ConfigurationError, match="cannot be read"):
        find(tmp_path / "none.toml", tmp_path)


def test_lines_of_every_way_to_write_a_key(tmp_path):
    """Bare, quoted and dotted keys, nested tables, and a string over several lines that looks like settings."""
    text = '''a = 1
"b c" = 2
d.e = 3
text = """
f = 4
[g]
"""
[h.'i j']
k = 5
  [l]
m = {n = 6}
'''
    file = written(tmp_path, text)
    places = [
        ("a",),
        ("b c",),
        ("d", "e"),
        ("text",),
        ("h", "i j"),
        ("h", "i j", "k"),
        ("l",),
        ("l", "m"),
        ("l", "m", "n"),
    ]
    lines = [int(file.where(*place).rpartition(":")[2]) for place in places]
    assert lines == [1, 2, 3, 4, 8, 9, 10, 11, 11]
    assert file.where("none") == str(tmp_path / "retrysafe.toml")


@given(st.permutations(list(POLICY_OPTIONS)))
def test_the_line_of_an_option_is_its_line(tmp_path_factory, names):
    """In whatever order they stand."""
    text = "[policy]\n" + "".join(f"{name} = 0\n" for name in names)
    file = written(tmp_path_factory.getbasetemp(), text)
    for line, name in enumerate(names, 2):
        assert file.where("policy", name).endswith(f":{line}")

"""Every code block in the documentation is run, or checked in the way its kind allows.

For those who write pages. A block is fenced, and its info string is one of these words and nothing
besides; an indented block, a bare fence and any other info string fail. Each page gets an empty
folder, in which everything on it happens in order.

`python`
    Runs. The blocks of a page share one namespace. Assertions are welcome.
`bash`
    Runs as one script that stops at the first failure (`set -eu -o pipefail`), with the commands of
    this environment on the path. Variables do not reach the next block; files do. A server is
    started with `&` and runs until the end of the page; `curl` waits until the server that it calls
    listens.
`console`
    Each line after `$ ` runs and must succeed; a line that ends in a backslash goes on in the next.
    The output shown must be what is printed on both streams: `...` stands for anything, white space
    is not compared, and where no output is shown none is compared.
`js`
    Runs as a module in Chromium, in a page of the server whose port the page names first, where the module for browsers
    is called `retrysafe`. `console.assert` is welcome.
`html`
    What the document has in it in which the next `js` blocks run.
`toml`
    Parses, and the gateway accepts it as its configuration: the whole table, or `[tool.retrysafe]`.
    A block with other `[tool]` tables only is parsed. `# verify.toml` is a suite of `retrysafe verify`, and
    `# NAME-profile.toml` a profile for it.
`json`, `http`
    Parses: as JSON; as one HTTP message, whose content is parsed if its type is JSON.
`mermaid`
    A flowchart, a sequence, or the diagram of states, which is exactly the one that
    `retrysafe.protocol.states` draws.
`text`
    Anything: output, layouts. Neither run nor checked.

A `python`, `toml` or `bash` block whose first line is a comment with a file name, `# shop.py`, is
also saved under that name, so that later commands can use it.

The ports in `127.0.0.1:8080`, `localhost:8080`, `--port 8080` and `port=8080` are exchanged for free
ones, the same all over the page, and shown as the page shows them.

Commands that prepare a checkout (`git clone`, `make`, `pip install`, with `cd` and the like) would
start this test again, so a block that has one has nothing else; it is not run, but its targets must
exist in the Makefile, and what it installs must be declared in pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs.blocks import CURL, ROOT, Block, BlockError, Session, blocks_of, session
from tests.gateway.processes import until

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"), ROOT / "browser" / "README.md"]
)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A session in an empty folder."""
    namespace = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", namespace)  # dataclasses look their module up
    monkeypatch.chdir(tmp_path)
    with session(tmp_path, namespace) as opened:
        yield opened


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, reader: Session):
    """Every block of the page does what the page says."""
    for block in blocks_of(str(page.relative_to(ROOT)), page.read_text("utf-8")):
        reader.run(block)


GOOD = {
    "python": ["x = 1", "# shop.py\nimport dataclasses\n@dataclasses.dataclass\nclass Shop:\n    name: 'str'\n"],
    "bash": ["# a comment\ntrue\necho $HOME | grep -q .", "make test", "pip install 'retrysafe[gateway]' uvicorn"],
    "console": [
        "$ echo one two\none ...\n$ false; echo $?\n1\n",
        "$ echo 1 \\\n>   2\n1 2\n",
        "$ make demo\nanything\n",
    ],
    "toml": [
        "[tool.ruff]\nline-length = 1",
        '# verify.toml\noperation = "POST http://127.0.0.1:8000/"',
        '# our-profile.toml\nextends = "ietf"',
    ],
    "json": ['{"a": 1}'],
    "http": [
        'POST /charges HTTP/1.1\nIdempotency-Key: "k"\nContent-Type: application/json\n\n{"a": 1}',
        "HTTP/1.1 200 OK",
    ],
    "mermaid": ["flowchart LR\n  a --> b"],
    "text": ["anything"],
}
BAD = {
    "python": ["assert False", "x ="],
    "bash": ["false\ntrue", "echo $unset", "no-such-command", "make no-such-target", "make test\necho done"],
    "console": [
        "$ echo one\ntwo\n",
        "$ false\n",
        "echo one\n",
        "$ pip install retrysafe[nothing]",
        "$ pip install left",
    ],
    "toml": [
        "a =",
        "no-such-setting = 1",
        "[tool.retrysafe]\nno-such-setting = 1",
        "# verify.toml\nno-such-setting = 1",
        "# our-profile.toml\nno-such-setting = 1",
    ],
    "js": ["true;"],
    "json": ["{"],
    "http": ["hello", "HTTP/1.1 200 OK\nno colon", "HTTP/1.1 200 OK\nContent-Type: application/json\n\n{"],
    "mermaid": ["pie", "stateDiagram-v2\n    [*] --> done\n"],
    "python no-run": ["x = 1"],
    "": ["x = 1"],
    "indented": ["x = 1"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in GOOD.items() for text in texts])
def test_sound_block_passes(kind, text, reader):
    """The rules accept what they should."""
    reader.run(Block("page.md", 1, kind, text))


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in BAD.items() for text in texts])
def test_unsound_block_fails(kind, text, reader):
    """Every rule can fail."""
    with pytest.raises((BlockError, AssertionError, SyntaxError)):
        reader.run(Block("page.md", 1, kind, text))


def test_blocks_are_found_wherever_they_stand():
    """Fences in lists and quotes, with tildes, unclosed; and code without a fence."""
    page = "- x\n\n  ```json\n  1\n  ```\n\n> ~~~ text\n> 2\n> ~~~\n\n    3\n\n```` bash no-run\n```\n4\n"
    assert [(block.kind, block.text) for block in blocks_of("page.md", page)] == [
        ("json", "1\n"),
        ("text", "2\n"),
        ("indented", "3\n"),
        ("bash no-run", "```\n4\n"),
    ]


SERVER = """# serve.py
from http.server import HTTPServer, SimpleHTTPRequestHandler

def serve(port):
    HTTPServer(("127.0.0.1", port), SimpleHTTPRequestHandler).serve_forever()

if __name__ == "__main__":
    serve(port=8080)
"""
CLIENT = """from urllib.request import urlopen

assert urlopen("http://127.0.0.1:8080/name").read() == b"x\\n"
"""


def test_page_is_one_session(reader):
    """Names, files and servers live on from block to block, and ports are exchanged for free ones."""
    for kind, text in [
        ("python", "name = 'x'"),
        ("python", "with open('name', 'w') as file: print(name, file=file)"),
        ("python", SERVER),
        ("bash", "python serve.py &"),
        ("console", "$ curl --silent http://127.0.0.1:8080/name\nx\n$ echo localhost:8080\nlocalhost:8080\n"),
        ("console", f"$ python {CURL} -s http://127.0.0.1:8080/name\nx\n"),
        ("python", CLIENT),
    ]:
        reader.run(Block("page.md", 1, kind, text))


MODULE = """import { pending } from "retrysafe";

console.assert(pending().length === 0);
console.assert(document.querySelector("p").textContent === "some text");
console.assert((await fetch("/serve.py")).ok);
"""


def test_modules_run_in_a_page(reader):
    """They find the package, the server and the document; what fails or throws is told."""
    for kind, text in [
        ("python", SERVER),
        ("bash", "python serve.py &\ncurl -s -o /dev/null http://127.0.0.1:8080/"),
        ("html", "<p>some text</p>"),
        ("js", MODULE),
    ]:
        reader.run(Block("page.md", 1, kind, text))
    with pytest.raises(BlockError, match=r"at line 1 of the block\n.*nowhere"):
        reader.run(Block("page.md", 1, "js", "console.assert(false); await import('nowhere');"))


def test_nothing_outlives_its_page(tmp_path):
    """A server that a page started is gone when the page is over."""
    with session(tmp_path, ModuleType("page")) as reader:
        reader.run(Block("page.md", 1, "python", SERVER))
        reader.run(Block("page.md", 1, "bash", "python serve.py &\necho $! > pid\n"))
        server = Path("/proc", (tmp_path / "pid").read_text("ascii").strip())
        assert server.exists()
    until(lambda: not server.exists(), "the server is gone")  # killed at once, but reaped by whom it was left to

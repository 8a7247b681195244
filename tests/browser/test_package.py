"""What is published: the files, their types, their size."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
import tomllib

import brotli
import minify

from tests.docs.blocks import ROOT
from tests.installed import installed

PACKAGE = ROOT / "browser"
SOURCES = {path.stem: path.read_text("utf-8") for path in sorted(PACKAGE.glob("src/*.js"))}
COMPRESSED_BYTES_MAX = 4_000
_IMPORT = re.compile(r'^import (?:[^;]*?)"\./(\w+)\.js";\n', re.MULTILINE)


def in_order(name, before=()):
    """The modules that one needs, and itself, each behind those that it imports."""
    for needed in re.findall(r'from "\./(\w+)\.js"', SOURCES[name]):
        assert needed not in (name, *before), f"{name} imports itself by way of {needed}"
        yield from in_order(needed, (name, *before))
    yield name


def bundle():
    """All modules in one scope, as a bundler makes it."""
    names = [name for name in dict.fromkeys(in_order("index")) if name != "index"]
    assert {*names, "index"} == set(SOURCES)
    texts = [re.sub(r"^export ", "", _IMPORT.sub("", SOURCES[name]), flags=re.MULTILINE) for name in names]
    exported = ", ".join(exports())
    return f"export const {{ {exported} }} = (() => {{ {''.join(texts)} return {{ {exported} }} }})();"


def exports():
    """The names that the package has."""
    return sorted(re.findall(r"\w+", " ".join(re.findall(r"export \{([^}]+)\}", SOURCES["index"]))))


def test_it_is_small():
    """Minified, and compressed by Brotli as servers do: under 4 kB."""
    assert len(brotli.compress(minify.string("text/javascript", bundle()).encode())) < COMPRESSED_BYTES_MAX


def test_its_types_name_what_it_has():
    """The declarations and the module have the same names."""
    declarations = (PACKAGE / "src" / "index.d.ts").read_text("utf-8")
    assert sorted(re.findall(r"^export (?:function|class) (\w+)", declarations, re.MULTILINE)) == exports()


def test_what_npm_packs(tmp_path):
    """The modules, the types, the licence and the page for readers, and nothing else; of one version with the rest."""
    npm = installed("npm", "npm")
    command = [npm, "pack", "--ignore-scripts", "--offline", "--pack-destination", str(tmp_path)]
    subprocess.run(
        command, cwd=PACKAGE, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    )
    (packed,) = tmp_path.glob("*.tgz")
    with tarfile.open(packed) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        file = archive.extractfile("package/package.json")
        assert file
        manifest = json.load(file)
    assert names == {"LICENSE", "README.md", "package.json", "src/index.d.ts", *(f"src/{name}.js" for name in SOURCES)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (manifest["version"], manifest["license"]) == (project["version"], project["license"])
    assert {manifest["types"], *manifest["exports"]["."].values()} <= {f"./{name}" for name in names}
    assert (PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()

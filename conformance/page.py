"""The page that says what came of it, made from the record and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conformance.catalogue import ABSENT, OWN, PACKAGES, Subject
from conformance.judge import shown_command
from conformance.places import ROOT
from retrysafe.verify.case import Case
from retrysafe.verify.cases import CATALOGUE

PAGE = ROOT / "docs" / "conformance.md"
RECORD = ROOT / "conformance" / "record.json"

_CASES = {case.id: case for case in CATALOGUE}
_MARKS = {"pass": "✓", "fail": "**✗**", "warn": "✗", "skip": "", "inconclusive": "?"}
_SOURCES = (
    ("draft", "Rules of the draft", "the second column has the draft's own word, not ours"),
    ("standard", "Rules of other standards", "RFC 9110, RFC 9651, AIP-155 and the like, as they bear on keys"),
    ("contract", "Our own rules", "[the contract](contract.md) of this project; nobody else has promised them"),
)
# How the draft itself says it, version 07, section by section. All else that binds in our cases binds by our own word.
DRAFT_SAYS = {
    "SYN-01": "MUST (2.1)",
    "TTL-01": "MUST (2.5.2)",
    "SYN-04": "SHOULD (2.7)",
    "REP-01": "SHOULD (2.6)",
    "REP-20": "SHOULD (2.6)",
    "FPR-01": "SHOULD (2.7)",
    "CON-01": "SHOULD (2.6)",
    "CON-02": "SHOULD (2.7)",
    "CON-04": "SHOULD (2.6)",
    "DOC-03": "SHOULD (2.7)",
    "REP-06": "purpose (1)",
    "MTH-03": "purpose (1)",
    "SYN-13": "advice (5)",
    "SYN-14": "advice (5)",
    "SEC-01": "advice (5)",
    "OUT-04": "SHOULD (2.6)",
}


def source_of(case: Case) -> str:
    """Whose rule a case is about: of the draft, of another standard, or ours."""
    first = case.source.partition(" ")[0]
    return first if first in {"draft", "contract"} else "standard"


def line_of(kept: Mapping[str, Any]) -> str:
    """What came of one subject, in a line."""
    name = f"{kept['name']} {kept['version']}".strip()
    if "absent" in kept:
        return f"{name}: not judged: {kept['absent']}"
    counts = Counter(kept["cases"].values())
    return f"{name}: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in _MARKS if counts[verdict])


def page(record: Mapping[str, Any]) -> str:
    """The whole page."""
    results = {kept["name"]: kept for kept in record["subjects"]}
    judged = [subject for subject in (*OWN, *PACKAGES) if "cases" in results.get(subject.name, {})]
    absent = [subject for subject in (*PACKAGES, *ABSENT) if "absent" in results.get(subject.name, {})]
    return "\n".join(_lines(record, results, judged, absent)) + "\n"


def _lines(
    record: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    judged: Sequence[Subject],
    absent: Sequence[Subject],
) -> Iterator[str]:
    dates = sorted({kept["date"] for kept in results.values()})
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    yield _HEAD.format(command=shown_command(), when=when, **{name: record[name] for name in ("python", "node")})
    yield from _summary(results, judged)
    yield ""
    if absent:
        yield _ABSENT
        for subject in absent:
            yield f"- `{subject.name}`: the registry's client says {results[subject.name]['absent']}"
        yield ""
    yield "## Every case"
    yield ""
    yield _LEGEND
    for source, title, whose in _SOURCES:
        cases = [case for case in _CASES.values() if source_of(case) == source]
        yield from _matrix(title, whose, cases, results, judged)
    yield "## Each package"
    yield ""
    yield _EACH
    for subject in judged:
        if not subject.is_own:
            yield from _section(subject, results[subject.name])
    yield _TAIL


def _summary(results: Mapping[str, Mapping[str, Any]], judged: Sequence[Subject]) -> Iterator[str]:
    yield "| | version | released | draft: MUST | draft: the rest | other standards | ours | not tried |"
    yield "|---|---|---|---|---|---|---|---|"
    for subject in judged:
        cases = results[subject.name]["cases"]
        untried = sum(verdict in {"skip", "inconclusive"} for verdict in cases.values())
        cells = [_held(cases, group) for group in ("draft: MUST", "draft", "standard", "contract")]
        title = f"retrysafe, {subject.name}" if subject.is_own else f"[{subject.name}](#{_anchor(subject.name)})"
        yield f"| {title} | {subject.version} | {subject.released} | {' | '.join(cells)} | {untried} |"


def _group(id_: str) -> str:
    """The column that a case counts in."""
    return "draft: MUST" if DRAFT_SAYS.get(id_, "").startswith("MUST") else source_of(_CASES[id_])


def _held(cases: Mapping[str, str], group: str) -> str:
    """How many of the cases of a group hold, of those that were tried."""
    verdicts = [verdict for id_, verdict in cases.items() if _group(id_) == group]
    tried = [verdict for verdict in verdicts if verdict in {"pass", "fail", "warn"}]
    return f"{tried.count('pass')} of {len(tried)}" if tried else ""


def _anchor(name: str) -> str:
    """The anchor of a heading, as renderers of Markdown make it."""
    return "".join(character for character in name.lower() if character.isalnum() or character in "-_")


def _matrix(
    title: str,
    whose: str,
    cases: Sequence[Case],
    results: Mapping[str, Mapping[str, Any]],
    judged: Sequence[Subject],
) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield f"{whose[0].upper()}{whose[1:]}."
    yield ""
    yield f"| case | | {' | '.join(subject.name for subject in judged)} |"
    yield f"|---|---|{'---|' * len(judged)}"
    for case in cases:
        verdicts = [results[subject.name]["cases"].get(case.id, "skip") for subject in judged]
        if set(verdicts) != {"skip"}:
            word = DRAFT_SAYS.get(case.id, case.severity.value)
            yield f"| {case.id} | {word} | {' | '.join(_MARKS[verdict] for verdict in verdicts)} |"
    yield ""


def _section(subject: Subject, kept: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {subject.name}"
    yield ""
    yield f"Version {subject.version}, judged on {kept['date']}. It promises: {subject.promises}."
    yield f"Wired here: {subject.wired}. {_sentence(subject.besides)}"
    if subject.bare_keys:
        yield "It refuses keys in quotes, which is how the draft has them, so it is judged by keys without."
    yield ""
    findings = kept["findings"]
    if not findings:
        yield "Nothing was found."
    else:
        yield "| case | whose rule | what must hold | expected | seen |"
        yield "|---|---|---|---|---|"
    for id_, (expected, seen) in findings.items():
        case = _CASES[id_]
        whose = f"the draft: {DRAFT_SAYS[id_]}" if id_ in DRAFT_SAYS else f"{case.source}: {case.severity.value}"
        yield f"| {id_} | {_cell(whose)} | {_cell(case.sentence)} | {_cell(expected)} | {_cell(seen)} |"
    yield ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


_HEAD = """# Conformance

What `retrysafe verify` says of the public packages for Python and Node that protect requests by an `Idempotency-Key`,
and of retrysafe's own doors. Every row can be made again:

```bash
make conformance
```

Judged on {when}, under Python {python} and Node {node}. Each package is installed by pip or npm into an environment
of its own, in the version that its row has, and wired as its own README says around the same small shop, which is in
`conformance/`. The shop counts its effects, and this is the command:

```text
{command}
```

Three things are fair to know. The packages run over their own memory in one process, where they have one: the easier
task, since no store can be away and no second process asks. The core cases are run, twenty rounds of each race, with
the profile of the draft; the draft leaves much open, so many cases ask more than it does, and more than a package
claims: which rule is whose is told apart below. And a package that does not promise something breaks no promise by not
doing it; what each promises stands beside its findings.

The draft is `draft-ietf-httpapi-idempotency-key-header-07`, which has expired and is no RFC. It binds a server by MUST
in two things only: a key is a String of Structured Fields, in quotes, and what holds for keys is published. All else is
a SHOULD there, or follows from its purpose. Where the verifier is stricter, that is our wish.

How many cases hold, of those that were tried:
"""
_ABSENT = """Not judged, because the registry does not have them, although their pages say how they are installed:
"""
_LEGEND = """✓ holds; **✗** does not, and binds; ✗ does not, and should; ? nothing can be said; an empty cell was not
tried. [What each case says](reference/verify-cases.md).
"""
_EACH = "What each promises of itself, in few words; then what was found, and whose rule that is.\n"
_TAIL = """## What was needed

Python packages need nothing but pip. The Node packages need `node` and `npm`, which Debian has as `nodejs` and `npm`;
where these are missing, their rows say so. The environments are kept in `.cache/conformance`; delete it to install
everything anew. The record that this page is made from is `conformance/record.json`."""

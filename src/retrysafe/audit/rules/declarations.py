"""Is what is declared of a handler what its code does?"""

from __future__ import annotations

from collections.abc import Iterator

from retrysafe.audit.money import money_in
from retrysafe.audit.rule import Asked, Found, Rules, SetOptions, Severity, of_operation
from retrysafe.audit.surface import Operation, Surface

rules = Rules()


def _declared(surface: Surface) -> Iterator[Operation]:
    return (it for it in surface.operations if it.policy is not None and it.is_policy_known)


@rules.rule(
    "AUD-08", Severity.ERROR, "contract R42, R44", "Its answers become 500, or what is known after a crash is unknown."
)
def transaction_contradicted(surface: Surface, _: Asked) -> Iterator[Found]:
    """A handler calls `complete_within` if, and only if, it is declared transactional."""
    for operation in _declared(surface):
        policy, evidence, options = operation.policy, operation.evidence, operation.options or {}
        is_transactional = policy is not None and policy.transactional
        if is_transactional and options.get("recovery") == "manual":
            yield of_operation(
                operation,
                'is declared transactional=True and recovery="manual": the first makes it "rerun"',
                "remove one of them",
                SetOptions(operation, {"recovery": "rerun"}),
            )
        if is_transactional and evidence.mentions("complete_within") is False:
            yield of_operation(
                operation,
                "is declared transactional=True, and nothing in its application calls complete_within: "
                "every success is answered with 500 rolled-back",
                "call operation().complete_within(connection, response), or do not declare it",
                SetOptions(operation, {"transactional": False}),
            )
        if not is_transactional and "complete_within" in evidence.names:
            yield of_operation(
                operation,
                "calls complete_within, and is not declared transactional=True: after a crash its outcome counts as "
                "unknown, although the database knows it",
                "declare it",
                SetOptions(operation, {"transactional": True}),
                Severity.WARNING,
            )


@rules.rule("AUD-09", Severity.ERROR, "contract R44", "After a crash it runs again, and pays again.")
def rerun_without_steps(surface: Surface, _: Asked) -> Iterator[Found]:
    """What moves money and is declared safe to run again has one commit, or steps, or keys for those that it calls."""
    for operation in _declared(surface):
        policy, evidence = operation.policy, operation.evidence
        if policy is None or policy.recovery != "rerun" or policy.transactional or not (money := money_in(operation)):
            continue
        if all(evidence.mentions(name) is False for name in ("step", "child_key", "complete_within")):
            yield of_operation(
                operation,
                f'is declared recovery="rerun", {money}, and its application takes no step and derives no key',
                "take its effects in steps, or leave the outcome to people",
                SetOptions(operation, {"recovery": "manual"}),
            )


@rules.rule("AUD-10", Severity.ERROR, "contract R51", "Whatever it did before it failed, its retry does again.")
def effects_never_begin(surface: Surface, _: Asked) -> Iterator[Found]:
    """A handler that is declared to say when its effects begin says so."""
    for operation in _declared(surface):
        policy, evidence = operation.policy, operation.evidence
        if policy is None or policy.effects != "declared":
            continue
        if all(evidence.mentions(name) is False for name in ("begin_effects", "step")):
            yield of_operation(
                operation,
                'is declared effects="declared", and nothing in its application calls begin_effects or takes a step',
                "call operation().begin_effects() before the first effect, or do not declare it",
                SetOptions(operation, {"effects": "assumed"}),
            )


@rules.rule("AUD-11", Severity.ERROR, "contract R22, R34", "Another payment under the same key is answered as if done.")
def nothing_compared(surface: Surface, _: Asked) -> Iterator[Found]:
    """Of what moves money, another request under the same key is refused."""
    for operation in _declared(surface):
        if operation.policy is not None and operation.policy.fingerprint == "none" and (money := money_in(operation)):
            yield of_operation(
                operation,
                f'compares nothing (fingerprint="none"), and {money}',
                'compare what must be the same: fingerprint="full"',
                SetOptions(operation, {"fingerprint": "full"}),
            )

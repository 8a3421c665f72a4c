"""Rules in the store: inside the writer's transaction, and read back.

A write of rules takes a sequence number like every other, so consistency tokens cover it. It adds nothing to the event
log; that it happened stands in `catalogs.rules_sequence`, by which other replicas know that they have to read.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from ranking_service.rules.rule import RuleBook
from ranking_service.rules.rule_conversions import to_domain
from ranking_service.users.store.event_rows import lock_sequence, take_sequence
from ranking_service.users.store.schema import catalogs, rules
from ranking_service.users.user import Change
from service_runtime.errors import QuotaReached
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


def put_rule(
    connection: Connection,
    catalog: str,
    catalog_key: int,
    rule: pb.Rule,
    max_rules: int,
    validate_only: bool,
) -> Change:
    """Makes or replaces a rule, which is kept as it is.

    Raises:
        QuotaReached: It is new, and there are as many as allowed.
    """
    before = lock_sequence(connection, catalog_key)
    ids = set(connection.execute(select(rules.c.rule_id).where(rules.c.catalog_key == catalog_key)).scalars())
    if rule.id not in ids and len(ids) >= max_rules:
        raise QuotaReached(
            f"the rules of catalogue {catalog!r}",
            f"there are {len(ids)} rules, which is the limit; delete one first",
            reason="TOO_MANY_RULES",
        )
    if validate_only:
        return Change(catalog, before, before)
    after = _note_write(connection, catalog_key)
    payload = rule.SerializeToString(deterministic=True)
    if rule.id in ids:
        is_it = (rules.c.catalog_key == catalog_key, rules.c.rule_id == rule.id)
        connection.execute(update(rules).where(*is_it).values(sequence=after, payload=payload))
    else:
        made = insert(rules).values(catalog_key=catalog_key, rule_id=rule.id, sequence=after, payload=payload)
        connection.execute(made)
    return Change(catalog, before, after, rules=load_book(connection, catalog_key))


def delete_rule(connection: Connection, catalog: str, catalog_key: int, rule_id: str) -> Change:
    """Deletes a rule, if there is one of that id."""
    before = lock_sequence(connection, catalog_key)
    is_it = (rules.c.catalog_key == catalog_key, rules.c.rule_id == rule_id)
    if connection.execute(delete(rules).where(*is_it)).rowcount == 0:
        return Change(catalog, before, before)
    after = _note_write(connection, catalog_key)
    return Change(catalog, before, after, existed=True, rules=load_book(connection, catalog_key))


def load_book(connection: Connection, catalog_key: int) -> RuleBook:
    """The rules of a catalogue and the sequence of their last write."""
    query = select(rules.c.payload).where(rules.c.catalog_key == catalog_key).order_by(rules.c.rule_id)
    kept = tuple(to_domain(pb.Rule.FromString(payload)) for payload in connection.execute(query).scalars())
    return RuleBook(kept, rules_sequence(connection, catalog_key))


def rules_sequence(connection: Connection, catalog_key: int) -> int:
    """The sequence of the last write of a rule; 0: there was none."""
    query = select(catalogs.c.rules_sequence).where(catalogs.c.catalog_key == catalog_key)
    return int(connection.execute(query).scalar_one())


def load_page(connection: Connection, catalog_key: int, after: str, limit: int) -> list[pb.Rule]:
    """Rules in the order of their ids, those behind `after`."""
    query = (
        select(rules.c.payload)
        .where(rules.c.catalog_key == catalog_key, rules.c.rule_id > after)
        .order_by(rules.c.rule_id)
        .limit(limit)
    )
    return [pb.Rule.FromString(payload) for payload in connection.execute(query).scalars()]


def _note_write(connection: Connection, catalog_key: int) -> int:
    after = take_sequence(connection, catalog_key, 1)
    noted = update(catalogs).where(catalogs.c.catalog_key == catalog_key).values(rules_sequence=after)
    connection.execute(noted)
    return after

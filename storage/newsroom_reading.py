"""What one step of the notifier reads from PostgreSQL: new events, what is due, and all that concerns them.

A fixed number of statements, however many events. Writing is newsroom_writing.py's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from engine.core.newsroom import (
    Area,
    Facts,
    Group,
    Item,
    Lane,
    NodeFacts,
    Policy,
    Recipient,
    State,
    Subject,
    Telling,
    licence_of,
    news_of,
)
from engine.core.records import Event
from storage.pool import Connection
from storage.postgres_history import EVENT_FIELDS

_REMINDS = "lane = 'reminder'"
_LOOKED_AT = 20  # times `limit`, of what is due: enough to see of whom there is how much
_ITEMS = "select subject, channel_id::text, body from news_item"


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. `full`: more is there to be read at once."""

    state: State
    facts: Facts
    cursor: int  # of the last event
    full: bool
    events_full: bool


async def read(
    connection: Connection, policy: Policy, totals: dict[str, int], now_ms: int, limit: int
) -> Reading:
    """In a transaction, with the notifier's row locked. `totals`: nodes by area."""
    cursor = int(await connection.fetchval("select cursor from notifier"))
    telling = await _telling(connection)
    if telling:
        return await _read_telling(connection, telling, cursor, now_ms, limit)
    events, cursor = await _events(connection, cursor, limit)
    events_full = len(events) == limit
    as_of_ms = min(now_ms, events[-1].at_ms) if events_full else now_ms
    subjects = await _subjects(connection, events, as_of_ms, limit)
    state = State(
        items=await _items(connection, events, subjects, as_of_ms, limit),
        subjects=subjects,
        areas={},
        degraded=dict(await connection.fetch("select shard, since_ms from news_degraded")),
        telling={},
    )
    due = await _due(connection, state, as_of_ms)
    about = [*events, *(each.last for each in subjects.values()), *_events_of(state.items.values())]
    nodes = await _nodes(connection, about)
    owners = await _owners(connection, events)
    people = {node.owner_id for node in nodes.values() if node.owner_id} | {
        user for users in owners.values() for user in users
    }
    recipients, unconfirmed = await _recipients(
        connection, about, people, {channel for _, channel in state.items}
    )
    state.subjects = subjects | await _told_last(connection, events, recipients)
    state.areas = await _areas(connection, events, nodes, as_of_ms, limit)
    facts = Facts(
        as_of_ms=as_of_ms,
        events=events,
        nodes=nodes,
        owners=owners,
        recipients=recipients,
        unconfirmed=unconfirmed,
        windows=await _windows(connection, about, as_of_ms),
        totals=totals,
        due=due,
        gather=await _gather(connection, due, recipients, policy, as_of_ms),
    )
    full = events_full or any(due.values()) or len(subjects) >= limit
    return Reading(state=state, facts=facts, cursor=cursor, full=full, events_full=events_full)


async def _events(connection: Connection, cursor: int, limit: int) -> tuple[tuple[Event, ...], int]:
    records = await connection.fetch(
        f"select {EVENT_FIELDS} from event where cursor > $1 order by cursor limit $2", cursor, limit
    )
    events = []
    for cursor, *fields, workloads, detail in records:  # noqa: B007 - the last one is what we want
        events.append(Event(*[*fields, tuple(workloads), detail]))
    return tuple(events), cursor


async def _telling(connection: Connection) -> dict[Group, Telling]:
    records = await connection.fetch(
        "select channel_id::text, lane, notice_id, upto_ms from news_telling order by 1, 2 limit 1"
    )
    return {(channel, lane == "reminder"): Telling(notice, upto) for channel, lane, notice, upto in records}


async def _read_telling(
    connection: Connection, telling: dict[Group, Telling], cursor: int, now_ms: int, limit: int
) -> Reading:
    """A digest under way comes before everything else, so that what it tells of is told."""
    ((channel_id, reminds), under) = next(iter(telling.items()))
    where = f"channel_id = $1 and due_ms <= $2 and ({_REMINDS}) = $3"
    values = (channel_id, under.upto_ms, reminds)
    records = await connection.fetch(f"{_ITEMS} where {where} order by due_ms limit $4", *values, limit)
    count = await connection.fetchval(f"select count(*) from news_item where {where}", *values)
    items = {(subject, channel): msgspec.json.decode(body, type=Item) for subject, channel, body in records}
    facts = Facts(as_of_ms=now_ms, due={(channel_id, reminds): count - len(items)})
    state = State(items=items, subjects={}, areas={}, degraded={}, telling=telling)
    return Reading(state=state, facts=facts, cursor=cursor, full=True, events_full=False)


async def _subjects(
    connection: Connection, events: Iterable[Event], as_of_ms: int, limit: int
) -> dict[str, Subject]:
    records = await connection.fetch(
        """
        select subject, body from news_subject where subject = any($1::text[])
        union all select * from (
          select subject, body from news_subject where due_ms <= $2 order by due_ms limit $3) due
        """,
        list({licence_of(event) or event.workload_id or event.node_id or "" for event in events}),
        as_of_ms,
        limit,
    )
    return {subject: msgspec.json.decode(body, type=Subject) for subject, body in records}


async def _told_last(
    connection: Connection, events: Iterable[Event], recipients: Iterable[str]
) -> dict[str, Subject]:
    """When these channels were told last of these kinds of news."""
    kinds = {event.kind for event in events if not event.kind.endswith((".down", ".up"))}
    records = await connection.fetch(
        "select subject, body from news_subject where subject = any($1::text[])",
        [news_of(kind, channel) for kind in kinds for channel in recipients],
    )
    return {subject: msgspec.json.decode(body, type=Subject) for subject, body in records}


async def _items(
    connection: Connection,
    events: Iterable[Event],
    subjects: dict[str, Subject],
    as_of_ms: int,
    limit: int,
) -> dict[tuple[str, str], Item]:
    """Of the subjects at hand all, and up to `limit` of those due: of whole recipients, longest due first.

    Not simply the first `limit`: of a crowd of recipients that would begin a digest for each of them that is
    cut off, and each of those takes a step of its own to finish, while events wait.
    """
    wanted = {event.workload_id or event.node_id or f"shard:{event.shard}" for event in events}
    records = await connection.fetch(
        f"""
        {_ITEMS} where subject = any($1::text[])
        union all select * from (
          select subject, i.channel_id::text, body from news_item i join (
            select channel_id, reminds, count,
              sum(count) over (order by due_ms, channel_id, reminds) - count as before
            from (
              select channel_id, {_REMINDS} as reminds, min(due_ms) as due_ms, count(*) as count
              from (select channel_id, lane, due_ms from news_item where due_ms <= $2
                order by due_ms limit $3 * {_LOOKED_AT}) early group by 1, 2) whose) g
            on g.channel_id = i.channel_id and g.reminds = ({_REMINDS})
          where i.due_ms <= $2 and (g.before = 0 or g.before + g.count <= $3)
          order by i.due_ms, i.channel_id, i.subject limit $3) due
        """,
        list(wanted | set(subjects)),
        as_of_ms,
        limit,
    )
    return {(subject, channel): msgspec.json.decode(body, type=Item) for subject, channel, body in records}


async def _due(connection: Connection, state: State, as_of_ms: int) -> dict[Group, int]:
    loaded = Counter(
        (channel, item.lane == "reminder")
        for (_, channel), item in state.items.items()
        if item.due_ms is not None and item.due_ms <= as_of_ms
    )
    if not loaded:
        return {}
    records = await connection.fetch(
        f"""
        select channel_id::text, {_REMINDS} as reminds, count(*) from news_item
        where channel_id = any($1::uuid[]) and due_ms <= $2 group by 1, 2
        """,
        list({channel for channel, _ in loaded}),
        as_of_ms,
    )
    counts = {(channel, reminds): count for channel, reminds, count in records}
    return {group: counts[group] - count for group, count in loaded.items()}


async def _nodes(connection: Connection, about: Iterable[Event]) -> dict[str, NodeFacts]:
    records = await connection.fetch(
        """
        select n.node_id::text, null, n.owner_id::text, n.region, n.revoked_ms is not null
          or n.retired_ms is not null
        from node n where n.node_id = any($1::uuid[])
        union all
        select n.node_id::text, w.workload_id::text, n.owner_id::text, n.region, n.revoked_ms is not null
          or n.retired_ms is not null
        from workload w join node n using (node_id) where w.workload_id = any($2::uuid[])
        """,
        list({event.node_id for event in about if event.node_id}),
        list({event.workload_id for event in about if event.workload_id and not event.node_id}),
    )
    return {
        workload or node: NodeFacts(owner_id=owner, region=region, gone=gone)
        for node, workload, owner, region, gone in records
    }


async def _owners(connection: Connection, events: Iterable[Event]) -> dict[str, tuple[str, ...]]:
    records = await connection.fetch(
        """
        select project_id::text, array_agg(user_id::text order by user_id) from project_owner
        where project_id = any($1::uuid[]) group by 1
        """,
        list({event.project_id for event in events if event.project_id}),
    )
    return {project: tuple(users) for project, users in records}


async def _recipients(
    connection: Connection, about: Iterable[Event], people: set[str], channels: set[str]
) -> tuple[dict[str, Recipient], dict[str, Recipient]]:
    """Living channels of these projects and people, of the operators, and those asked for by id; and of them
    for itself what waits for its recipient to confirm it."""
    records = await connection.fetch(
        """
        with wanted as (
          select channel_id from channel where project_id = any($1::uuid[])
          union select channel_id from channel where user_id = any($2::uuid[])
          union select channel_id from channel join account using (user_id) where admin
          union select unnest($3::uuid[]))
        select channel_id::text, project_id::text, user_id::text, event_kinds, coalesce(admin, false),
          coalesce(down_delay_s, 300), quiet_from, quiet_to, coalesce(time_zone, 'UTC'),
          c.unconfirmed_ms is not null
        from wanted join channel c using (channel_id) left join account a using (user_id)
          left join notification_setting using (user_id)
        where (c.disabled_ms is null or c.unconfirmed_ms is not null) and c.removed_ms is null
          and a.retired_ms is null
        """,
        list({event.project_id for event in about if event.project_id}),
        list(people),
        list(channels),
    )
    found: tuple[dict[str, Recipient], dict[str, Recipient]] = ({}, {})
    for channel, project, user, kinds, admin, delay_s, quiet_from, quiet_to, zone, unconfirmed in records:
        found[unconfirmed][channel] = Recipient(
            channel_id=channel,
            project_id=project,
            user_id=user,
            event_kinds=tuple(kinds),
            operator=admin,
            down_delay_s=delay_s,
            quiet_from=quiet_from,
            quiet_to=quiet_to,
            time_zone=zone,
        )
    return found


async def _windows(connection: Connection, about: Iterable[Event], as_of_ms: int) -> dict[str, int]:
    records = await connection.fetch(
        """
        select coalesce(workload_id, node_id)::text, max(to_ms) from maintenance_window
        where node_id = any($1::uuid[]) and from_ms <= $2 and to_ms > $2 group by 1
        """,
        list({event.node_id for event in about if event.node_id}),
        as_of_ms,
    )
    return dict(records)


async def _areas(
    connection: Connection,
    events: Iterable[Event],
    nodes: dict[str, NodeFacts],
    as_of_ms: int,
    limit: int,
) -> dict[str, Area]:
    names = {f"ingress:{event.shard}" for event in events} | {
        f"region:{node.region}" for node in nodes.values() if node.region
    }
    records = await connection.fetch(
        """
        select area, body from news_area where area = any($1::text[])
        union all select * from (select area, body from news_area where due_ms <= $2 limit $3) due
        """,
        list(names),
        as_of_ms,
        limit,
    )
    return {area: msgspec.json.decode(body, type=Area) for area, body in records}


async def _gather(
    connection: Connection,
    due: dict[Group, int],
    recipients: dict[str, Recipient],
    policy: Policy,
    as_of_ms: int,
) -> dict[tuple[str, Lane], int]:
    """When the last is due of those that fell, or rose, soon after the first which is due."""
    lanes: tuple[Lane, ...] = ("fall", "rise")
    asked = [
        (channel, lane, recipients[channel].gather_ms(policy, lane), recipients[channel].delay_ms(policy))
        for channel, reminds in due
        if not reminds and channel in recipients
        for lane in lanes
    ]
    if not asked:
        return {}
    records = await connection.fetch(
        """
        select channel_id::text, lane, (
          select max(i.due_ms) from news_item i
          where i.channel_id = a.channel_id and i.lane = a.lane and i.held_ms <= first_ms + gather_ms
            and i.due_ms <= first_ms + gather_ms + delay_ms)
        from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
            as a (channel_id, lane, gather_ms, delay_ms)
          cross join lateral (
            select min(i.held_ms) as first_ms from news_item i
            where i.channel_id = a.channel_id and i.lane = a.lane and i.due_ms <= $5) first
        where first_ms is not null
        """,
        *([each[column] for each in asked] for column in range(4)),
        as_of_ms,
    )
    return {(channel, lane): until_ms for channel, lane, until_ms in records if until_ms is not None}


def _events_of(items: Iterable[Item]) -> list[Event]:
    return [event for item in items if (event := item.waits or item.told) is not None]

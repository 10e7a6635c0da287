-- migrate:up

-- Under which licence a workload was to run when: half-open, to_ms null = still is.
create table licence_binding (
  workload_id uuid not null references workload,
  licence_id uuid not null references licence,
  from_ms bigint not null,
  to_ms bigint check (to_ms > from_ms),
  primary key (workload_id, from_ms)
);
create unique index licence_binding_open on licence_binding (workload_id) where to_ms is null;
create index licence_binding_licence on licence_binding (licence_id, from_ms);
-- When a licence was bound later than its workload was made is not known of those from before.
insert into licence_binding (workload_id, licence_id, from_ms, to_ms)
select workload_id, licence_id, created_ms, retired_ms from workload
where licence_id is not null and (retired_ms is null or retired_ms > created_ms);

-- Who holds a licence, and who held it: at most one at a time. Written by the one who settles.
create table licence_lease (
  licence_id uuid not null references licence,
  epoch integer not null check (epoch >= 1),
  holder uuid not null references workload,
  from_ms bigint not null,
  to_ms bigint check (to_ms >= from_ms),
  ended text not null default '' check ((ended = '') = (to_ms is null)),
  primary key (licence_id, epoch)
);
create unique index licence_lease_open on licence_lease (licence_id) where to_ms is null;

-- What was said on licences and nobody has settled yet. Shards know the workload, a sale the licence alone.
create table lease_say (
  licence_id uuid,
  workload_id uuid,
  at_ms bigint not null,
  what text not null
    check (what in ('claim', 'stopped', 'lost', 'absent', 'retired', 'unbound', 'bound', 'sold')),
  check (licence_id is not null or workload_id is not null),
  unique nulls not distinct (workload_id, at_ms, what, licence_id)
);
create index lease_say_at on lease_say (at_ms);

-- Up to when a licence's leases are settled: a say that comes later and is older is judged at that time.
create table licence_settled (
  licence_id uuid primary key references licence,
  settled_ms bigint not null
);

-- `lease` stays what it was, the times in which another run held a workload's licence: now it says which.
alter table lease
  add column licence_id uuid,
  add column epoch integer,
  add column claimed_ms bigint; -- the first beat in that epoch: the event licence.conflict was told of it
create index lease_of_licence on lease (licence_id, epoch) where licence_id is not null;

-- Everything that the shard had to say on licences up to here is in; it stands still in a gap and its grace.
alter table shard_state add column leases_ms bigint not null default 0;

-- Engines hear which of their workloads are licensed.
insert into registry_change (seq, "row", at_ms)
select (select coalesce(max(seq), 0) from registry_change) + row_number() over (order by n."row"), n."row",
  (extract(epoch from now()) * 1000)::bigint
from node n
where n.retired_ms is null and (n.generation > 0 or n.capability_generation > 0)
  and exists (select from workload w where w.node_id = n.node_id and w.licence_id is not null);

-- migrate:down

alter table shard_state drop column leases_ms;
drop index lease_of_licence;
alter table lease drop column licence_id, drop column epoch, drop column claimed_ms;
drop table licence_settled, lease_say, licence_lease, licence_binding;

-- migrate:up

-- Times are unix milliseconds (bigint), ids are UUIDv7 made by the application.

create table project (
  project_id uuid primary key,
  slug text not null unique check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  created_ms bigint not null
);

create table api_key (
  key_id uuid primary key,
  key_sha256 bytea not null unique,
  scope text not null check (scope in ('admin', 'project')),
  project_id uuid references project,
  name text not null,
  created_ms bigint not null,
  revoked_ms bigint,
  check ((scope = 'project') = (project_id is not null))
);

-- Rows are dense and never reused: given out under a lock, not by a sequence (a rollback would leave a hole).
create table row_counter (
  only_one boolean primary key default true check (only_one),
  next_row bigint not null
);
insert into row_counter (next_row) values (0);

create table node (
  node_id uuid primary key,
  "row" bigint not null unique check ("row" between 0 and 4294967295),
  project_id uuid not null references project,
  kind text not null check (kind in ('node', 'check', 'canary')),
  name text not null,
  public_key bytea,
  interval_ms integer not null check (interval_ms >= 1000),
  generation integer not null default 0,
  salt bytea not null,
  capability_generation integer not null default 0,
  created_ms bigint not null,
  revoked_ms bigint,
  retired_ms bigint
);
create index node_project on node (project_id, node_id);

create table workload (
  workload_id uuid primary key,
  node_id uuid not null references node,
  slot smallint not null check (slot between 0 and 63),
  name text not null,
  created_ms bigint not null,
  retired_ms bigint,
  first_report_ms bigint,
  unique (node_id, slot)
);

create table session (
  "row" bigint not null,
  generation integer not null,
  secret_id smallint not null,
  salt bytea not null,
  opened_ms bigint not null,
  expires_ms bigint not null,
  interval_ms integer not null,
  ttl_ms integer not null,
  slots bytea not null, -- u64, big-endian mask
  killed_ms bigint, -- by revocation
  primary key ("row", opened_ms, generation)
);

create table nonce (
  node_id uuid not null,
  purpose text not null,
  nonce text not null,
  at_ms bigint not null,
  expires_ms bigint not null,
  primary key (node_id, purpose, nonce)
);
create index nonce_expiry on nonce (expires_ms);

-- Signed requests of a node, for the rate limit; refusals count as well.
create table signed_request (
  node_id uuid not null,
  purpose text not null,
  at_ms bigint not null
);
create index signed_request_node on signed_request (node_id, purpose, at_ms);

-- Sequence numbers are given out under an advisory lock held to the commit, so a reader never skips one.
create table registry_change (
  seq bigint primary key,
  "row" bigint not null,
  at_ms bigint not null
);

create table maintenance_window (
  window_id uuid primary key,
  node_id uuid not null references node,
  workload_id uuid references workload,
  from_ms bigint not null,
  to_ms bigint not null check (to_ms > from_ms),
  own boolean not null,
  created_ms bigint not null
);
create index maintenance_node on maintenance_window (node_id, from_ms);

create table base_interval (
  workload_id uuid not null,
  started_ms bigint not null,
  ended_ms bigint not null check (ended_ms > started_ms),
  ttl_ms bigint not null,
  kind smallint not null,
  primary key (workload_id, started_ms)
);

create table gap (
  shard integer not null,
  from_ms bigint not null,
  to_ms bigint not null check (to_ms > from_ms),
  cause text not null,
  primary key (shard, cause, from_ms)
);

create table lease (
  workload_id uuid not null,
  from_ms bigint not null,
  to_ms bigint,
  primary key (workload_id, from_ms)
);

create table claim (
  workload_id uuid not null,
  at_ms bigint not null,
  kind smallint not null,
  ttl_ms bigint not null,
  primary key (workload_id, at_ms)
);

-- `cursor` is given out under an advisory lock held to the commit, so a reader never skips a late commit.
create table event (
  cursor bigint generated always as identity primary key,
  event_id text not null unique,
  kind text not null,
  shard integer not null,
  project_id uuid,
  node_id uuid,
  workload_id uuid,
  since_ms bigint not null,
  at_ms bigint not null,
  workloads uuid[] not null default '{}',
  detail text not null default ''
);
create index event_project on event (project_id, cursor);

create table shard_state (
  shard integer primary key,
  position bigint not null,
  watermark_ms bigint not null
);

create table points_commit (
  commit_id uuid primary key,
  project_id uuid not null references project,
  day date not null,
  idempotency_key text not null,
  body_sha256 bytea not null,
  rows integer not null,
  total_micro_points numeric(38, 0) not null,
  committed_ms bigint not null,
  unique (project_id, day),
  unique (project_id, idempotency_key)
);

create table points (
  commit_id uuid not null references points_commit,
  workload_id uuid not null references workload,
  micro_points bigint not null,
  primary key (commit_id, workload_id)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'the ledger is append-only';
end $$;
create trigger points_append_only before update or delete or truncate on points
  for each statement execute function refuse_change();
create trigger points_commit_append_only before update or delete or truncate on points_commit
  for each statement execute function refuse_change();

create table channel (
  channel_id uuid primary key,
  project_id uuid not null references project,
  kind text not null check (kind in ('webhook', 'mail')),
  target text not null,
  secret text not null default '',
  created_ms bigint not null,
  disabled_ms bigint
);

create table notifier (
  only_one boolean primary key default true check (only_one),
  cursor bigint not null
);
insert into notifier (cursor) values (0);

create table delivery (
  delivery_id uuid primary key,
  channel_id uuid not null references channel,
  event_id text not null,
  state text not null default 'due' check (state in ('due', 'sent', 'dead')),
  attempts integer not null default 0,
  due_ms bigint not null,
  created_ms bigint not null,
  settled_ms bigint,
  note text not null default '',
  unique (event_id, channel_id)
);
create index delivery_due on delivery (due_ms) where state = 'due';

-- migrate:down

drop table delivery, notifier, channel, points, points_commit, shard_state, event, claim, lease, gap,
  base_interval, maintenance_window, registry_change, signed_request, nonce, session, workload, node,
  row_counter, api_key, project cascade;
drop function refuse_change;

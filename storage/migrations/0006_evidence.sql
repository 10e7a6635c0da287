-- migrate:up

-- Beats of a node that were refused on a UTC day, by reason, so far in one run of its shard. Runs add up.
create table refused_beat (
  day date not null,
  node_id uuid not null,
  reason text not null,
  run_ms bigint not null, -- when the run began
  count bigint not null check (count > 0),
  primary key (day, node_id, reason, run_ms)
);

-- Who opened a session: evidence of two managers with one key.
alter table session
  add column client_address text not null default '',
  add column manager_version text not null default '';
-- Until when further alternations of the node's managers are the same case, told already.
alter table node add column clone_told_until_ms bigint not null default 0;

-- What was told of a node in a range of time.
create index event_node_since on event (node_id, since_ms) where node_id is not null;

-- migrate:down

drop index event_node_since;
alter table node drop column clone_told_until_ms;
alter table session drop column client_address, drop column manager_version;
drop table refused_beat;

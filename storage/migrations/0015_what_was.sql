-- migrate:up

-- What held before a change of whose machine a node is, or of what a workload is, up to when it did (unix ms).
-- A seal takes what held at its day's end: of the rows from then on the first; without any, what holds now.
-- Of changes from before this table nothing is known.
create table node_owner_was (
  node_id uuid not null references node,
  to_ms bigint not null,
  owner_id uuid references account,
  primary key (node_id, to_ms)
);
create table workload_kind_was (
  workload_id uuid not null references workload,
  to_ms bigint not null,
  kind_id uuid references workload_kind,
  primary key (workload_id, to_ms)
);

create trigger node_owner_was_kept before update or delete or truncate on node_owner_was
  for each statement execute function refuse_change();
create trigger workload_kind_was_kept before update or delete or truncate on workload_kind_was
  for each statement execute function refuse_change();

-- Maintenance windows that were taken back before they began: nothing but the number of a day's windows.
create table window_taken_back (
  window_id uuid primary key,
  node_id uuid not null references node,
  workload_id uuid references workload,
  from_ms bigint not null,
  to_ms bigint not null,
  own boolean not null,
  taken_back_ms bigint not null
);
create index window_taken_back_node on window_taken_back (node_id, to_ms);

-- migrate:down

drop table window_taken_back;
drop table workload_kind_was;
drop table node_owner_was;

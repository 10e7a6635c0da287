-- migrate:up

-- Days of a project for which no claim is taken any more: being sealed (no seal yet) or sealed.
create table sealing (
  project_id uuid not null references project,
  day date not null,
  begun_ms bigint not null,
  primary key (project_id, day)
);

-- A revision of a project's day. Written in one transaction with its rows; nothing of it ever changes.
create table seal (
  seal_no bigint primary key,
  project_id uuid not null references project,
  day date not null,
  revision integer not null check (revision >= 1),
  reason text not null default '',
  actor text not null default '',
  "rows" integer not null,
  nodes integer not null,
  paid_ms bigint not null,
  -- sums by kind (records.KINDS), i64 big-endian
  kinds_ms bytea not null default decode(repeat('00', 96), 'hex') check (length(kinds_ms) = 12 * 8),
  root bytea not null check (length(root) = 32),
  hour_roots bytea not null check (length(hour_roots) = 24 * 32),
  node_blocks bytea not null, -- u32 big-endian: the place of the first row of each block of 1024 nodes
  sealed_ms bigint not null,
  unique (project_id, day, revision)
);

-- No foreign key to seal here and in seal_tree: rows come before the header, whose root is theirs. One
-- transaction writes both, and nothing can be changed after it.
create table sealed_row (
  seal_no bigint not null,
  place integer not null, -- among the leaves of the day, from 0
  workload_id uuid not null,
  node_id uuid not null,
  operator_id uuid,
  kind text,
  source text not null,
  from_ms bigint not null,
  to_ms bigint not null,
  ms bytea not null, -- u32 big-endian per kind (records.KINDS)
  paid_ms bigint not null,
  held text, -- JSON list of sealed.Held; null: none
  refused text, -- JSON object; null: none
  hours bytea not null, -- what each hour was; storage/seal_hours.py says how
  primary key (seal_no, place)
);
create unique index sealed_row_workload on sealed_row (workload_id, seal_no);
create index sealed_row_node on sealed_row (node_id, seal_no);

-- Roots of the blocks of 1024 leaves of each tree (-1: the day's, 0 to 23: the hours'), concatenated.
create table seal_tree (
  seal_no bigint not null,
  tree smallint not null check (tree between -1 and 23),
  block_roots bytea not null,
  primary key (seal_no, tree)
);

create function refuse_sealed_change() returns trigger language plpgsql as $$
begin
  raise exception 'sealed rows never change: a correction is a new revision';
end $$;
create trigger seal_append_only before update or delete or truncate on seal
  for each statement execute function refuse_sealed_change();
create trigger sealed_row_append_only before update or delete or truncate on sealed_row
  for each statement execute function refuse_sealed_change();
create trigger seal_tree_append_only before update or delete or truncate on seal_tree
  for each statement execute function refuse_sealed_change();

-- Days to be sealed once more, and what came of it.
create table seal_correction (
  correction_id uuid primary key,
  project_id uuid not null references project,
  day date not null,
  reason text not null,
  actor text not null,
  granted text not null, -- JSON list: the maintenance that was written with it
  asked_ms bigint not null,
  seal_no bigint, -- of the revision that it made; null: not yet
  done_ms bigint,
  rows_changed integer,
  paid_before_ms bigint,
  paid_after_ms bigint,
  changed text -- JSON list, the first 1,000 rows that changed
);
create index seal_correction_day on seal_correction (project_id, day, correction_id);
create index seal_correction_due on seal_correction (correction_id) where seal_no is null;

-- migrate:down

drop table seal_correction, seal_tree, sealed_row, seal, sealing;
drop function refuse_sealed_change;

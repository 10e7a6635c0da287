-- migrate:up

-- What somebody holds against a sealed day of a workload. Only `state` and `changed_ms` ever change.
create table dispute (
  dispute_id uuid primary key,
  project_id uuid not null references project,
  node_id uuid not null references node,
  workload_id uuid not null references workload,
  day date not null,
  revision integer not null, -- of the seal, when the dispute was opened
  opener_id uuid not null references account,
  state text not null default 'open' check (state in ('open', 'answered', 'corrected', 'rejected')),
  opened_ms bigint not null,
  changed_ms bigint not null,
  foreign key (project_id, day, revision) references seal (project_id, day, revision)
);
create unique index dispute_unsettled on dispute (workload_id, day, opener_id)
  where state in ('open', 'answered');
create index dispute_project on dispute (project_id, dispute_id);
create index dispute_opener on dispute (opener_id, dispute_id);
create index dispute_workload on dispute (workload_id, dispute_id);

-- What was said in it, by whom.
create table dispute_entry (
  dispute_id uuid not null references dispute,
  number integer not null check (number >= 1),
  entry_id uuid not null unique,
  what text not null check (what in ('open', 'comment', 'answer', 'correct', 'reject')),
  side text not null check (side in ('operator', 'project', 'installation')),
  actor text not null,
  text text not null,
  evidence text[] not null default '{}',
  revision integer, -- the seal that corrected it
  at_ms bigint not null,
  primary key (dispute_id, number),
  check ((what = 'correct') = (revision is not null))
);

create function refuse_dispute_change() returns trigger language plpgsql as $$
begin
  raise exception 'what was said in a dispute never changes';
end $$;
create trigger dispute_entry_append_only before update or delete or truncate on dispute_entry
  for each statement execute function refuse_dispute_change();
create trigger dispute_kept before delete or truncate on dispute
  for each statement execute function refuse_dispute_change();

create function check_dispute_change() returns trigger language plpgsql as $$
begin
  if to_jsonb(new) - '{state,changed_ms}'::text[] <> to_jsonb(old) - '{state,changed_ms}'::text[]
    or old.state in ('corrected', 'rejected') or new.state = 'open' and old.state <> 'open' then
    raise exception 'of a dispute only the state moves on';
  end if;
  return new;
end $$;
create trigger dispute_moves_on before update on dispute
  for each row execute function check_dispute_change();

-- migrate:down

drop table dispute_entry, dispute;
drop function refuse_dispute_change, check_dispute_change;

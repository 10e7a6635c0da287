-- migrate:up

-- Jobs that run by the clock. `next_ms`: the first due time that is no run yet; moving it on and writing the
-- runs is one statement, so a due time becomes a run once, however many workers look.
create table schedule_job (
  job text primary key,
  cron text not null, -- in UTC
  catch_up text not null check (catch_up in ('every', 'newest')),
  planned_ms bigint not null, -- the newest due time that became a run, or when the job was first known
  next_ms bigint not null check (next_ms > planned_ms)
);

-- A run belongs to who claimed it until its lease ends: it can then be claimed again.
create table schedule_run (
  job text not null references schedule_job,
  due_ms bigint not null,
  state text not null default 'due' check (state in ('due', 'done')),
  claims integer not null default 0, -- also tells one claim from a later one
  failures integer not null default 0,
  free_ms bigint not null, -- from then on it can be claimed
  first_ms bigint, -- the first claim
  begun_ms bigint, -- the newest claim
  worker text not null default '', -- who claimed it; empty: nobody has it in hand
  ended_ms bigint,
  note text not null default '',
  primary key (job, due_ms)
);
create index schedule_run_due on schedule_run (job, due_ms) where state = 'due';

-- What reports say of a sealed day: summed up once per revision, for the project as a whole (scope_id is the
-- project's id) and for each operator in it. Can be made again from the sealed rows.
create table report_sum (
  project_id uuid not null references project,
  day date not null,
  scope_id uuid not null,
  revision integer not null,
  workloads integer not null,
  nodes integer not null,
  window_ms bigint not null,
  paid_ms bigint not null,
  unobserved_ms bigint not null,
  worst text not null, -- JSON list of engine/core/reports.py Worst
  primary key (project_id, day, scope_id)
);
create index report_sum_scope on report_sum (scope_id, day);

-- migrate:down

drop table report_sum, schedule_run, schedule_job;

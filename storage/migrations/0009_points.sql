-- migrate:up

-- A day may be committed again: the newest revision counts, all stay. Commits of before seals have none.
alter table points_commit
  drop constraint points_commit_project_id_day_key,
  add column revision integer not null default 1 check (revision >= 1),
  add column seal_no bigint references seal,
  add column reason text not null default '',
  add column actor text not null default '',
  add constraint points_commit_revision_key unique (project_id, day, revision);

-- Both are made sure of for all rows at once by the statement that writes them; a million checks of single
-- rows would take as long as all the rest.
alter table points
  drop constraint points_commit_id_fkey,
  drop constraint points_workload_id_fkey;

-- Whom each row's points belong to; sums to the row. Nothing is written of zero points.
create table points_share (
  commit_id uuid not null,
  workload_id uuid not null,
  licence_id uuid, -- through which it is earned; null: by the machine
  kind text not null check (kind in ('wallet', 'user', 'node', 'nobody')),
  beneficiary text not null, -- a wallet, a user's id, a node's id; empty for nobody
  micro_points bigint not null check (micro_points > 0)
);
create index points_share_workload on points_share (commit_id, workload_id);
create index points_share_licence on points_share (commit_id, licence_id) where licence_id is not null;

-- The shares of a commit summed up.
create table points_total (
  commit_id uuid not null,
  kind text not null,
  beneficiary text not null,
  micro_points numeric(38, 0) not null,
  licence_micro_points numeric(38, 0) not null, -- as much of it as was earned through licences
  primary key (kind, beneficiary, commit_id)
);
create index points_total_commit on points_total (commit_id);

-- What a correction changed.
create table points_correction (
  commit_id uuid primary key references points_commit,
  replaces uuid not null references points_commit,
  rows_changed integer not null,
  rows_added integer not null,
  rows_removed integer not null,
  total_before numeric(38, 0) not null
);

insert into points_share
select p.commit_id, p.workload_id, null, case when n.owner_id is null then 'node' else 'user' end,
  coalesce(n.owner_id, n.node_id)::text, p.micro_points
from points p join workload w using (workload_id) join node n using (node_id)
where p.micro_points > 0;
insert into points_total
select commit_id, kind, beneficiary, sum(micro_points), 0 from points_share group by 1, 2, 3;

create trigger points_share_append_only before update or delete or truncate on points_share
  for each statement execute function refuse_change();
create trigger points_total_append_only before update or delete or truncate on points_total
  for each statement execute function refuse_change();
create trigger points_correction_append_only before update or delete or truncate on points_correction
  for each statement execute function refuse_change();

-- migrate:down

drop table points_correction, points_total, points_share;
alter table points_commit disable trigger points_commit_append_only;
alter table points disable trigger points_append_only;
delete from points p using points_commit c where p.commit_id = c.commit_id and exists (
  select 1 from points_commit n where n.project_id = c.project_id and n.day = c.day and n.revision > c.revision
);
delete from points_commit c where exists (
  select 1 from points_commit n where n.project_id = c.project_id and n.day = c.day and n.revision > c.revision
);
alter table points enable trigger points_append_only;
alter table points_commit enable trigger points_commit_append_only;
alter table points
  add constraint points_commit_id_fkey foreign key (commit_id) references points_commit,
  add constraint points_workload_id_fkey foreign key (workload_id) references workload;
alter table points_commit
  drop constraint points_commit_revision_key,
  drop column revision, drop column seal_no, drop column reason, drop column actor,
  add constraint points_commit_project_id_day_key unique (project_id, day);

-- migrate:up

-- What is told, once for all channels it goes to. `body`: JSON of engine/core/news.py Notice.
create table notice (
  notice_id text primary key, -- of a single event its event_id
  form text not null,
  kind text not null,
  body bytea not null,
  created_ms bigint not null
);

insert into notice (notice_id, form, kind, body, created_ms)
select e.event_id, 'event', e.kind, convert_to(jsonb_build_object(
    'notice_id', e.event_id, 'form', 'event', 'kind', e.kind, 'at_ms', e.at_ms, 'since_ms', e.since_ms,
    'count', 1, 'project_id', e.project_id, 'events', jsonb_build_array(jsonb_build_object(
      'event_id', e.event_id, 'kind', e.kind, 'shard', e.shard, 'project_id', e.project_id,
      'node_id', e.node_id, 'workload_id', e.workload_id, 'since_ms', e.since_ms, 'at_ms', e.at_ms,
      'workloads', to_jsonb(e.workloads), 'detail', e.detail)))::text, 'UTF8'), e.at_ms
from event e where exists (select from delivery d where d.event_id = e.event_id);
-- The history and the outbox were always written by the same database; a delivery without its event says nothing.
delete from delivery d where not exists (select from notice n where n.notice_id = d.event_id);

alter table delivery rename column event_id to notice_id;
alter table delivery add constraint delivery_notice foreign key (notice_id) references notice;

-- The notifier's state (engine/core/newsroom.py): what one channel is told, or will be, of one subject.
create table news_item (
  subject text not null,
  channel_id uuid not null references channel,
  lane text, -- with what it waits: fall, news, urgent, reminder; null: nothing waits
  held_ms bigint, -- since when
  due_ms bigint, -- until when
  body bytea not null, -- JSON
  primary key (subject, channel_id),
  check ((lane is null) = (due_ms is null) and (lane is null) = (held_ms is null))
);
create index news_item_due on news_item (due_ms) where due_ms is not null;
create index news_item_lane on news_item (channel_id, lane, due_ms) where due_ms is not null;

-- A digest whose items do not fit one step: those due up to `upto_ms` were told under this notice.
create table news_telling (
  channel_id uuid not null references channel,
  lane text not null,
  notice_id text not null,
  upto_ms bigint not null,
  primary key (channel_id, lane)
);

-- Changes of a node or a workload within the last hour, and whether it flaps.
create table news_subject (
  subject text primary key,
  due_ms bigint not null, -- when it is to be looked at again, or forgotten
  body bytea not null
);
create index news_subject_due on news_subject (due_ms);

-- Falls of a region or an ingress within the last minutes.
create table news_area (
  area text primary key,
  due_ms bigint not null, -- when it is forgotten
  body bytea not null
);
create index news_area_due on news_area (due_ms);

create table news_degraded (
  shard integer primary key,
  since_ms bigint not null
);

-- migrate:down

drop table news_degraded, news_area, news_subject, news_telling, news_item;
alter table delivery drop constraint delivery_notice;
delete from delivery d where not exists (select from event e where e.event_id = d.notice_id);
alter table delivery rename column notice_id to event_id;
drop table notice;

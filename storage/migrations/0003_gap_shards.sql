-- migrate:up

-- A gap is of the rows that the shard had at the time: row mod shards = shard.
alter table gap add column shards integer not null default 1 check (shards >= 1);
alter table gap alter column shards drop default;
alter table gap drop constraint gap_pkey, add primary key (shards, shard, cause, from_ms);
-- Gaps are asked for by row and time, whatever the shard count was.
create index gap_end on gap (to_ms);

-- migrate:down

drop index gap_end;
delete from gap a using gap b
  where a.shards > b.shards and (a.shard, a.cause, a.from_ms) = (b.shard, b.cause, b.from_ms);
alter table gap drop constraint gap_pkey, add primary key (shard, cause, from_ms);
alter table gap drop column shards;

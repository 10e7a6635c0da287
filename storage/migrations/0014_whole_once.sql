-- migrate:up

-- What was written in one transaction stays whole: no row is added later to a seal or to a commit of points.
-- Of a seal the rows come before its header, of a commit after it; both are of the transaction that adds.
create function refuse_late_seal_row() returns trigger language plpgsql as $$
begin
  if exists (
    select from seal s join (select distinct seal_no from added) a using (seal_no)
    where s.xmin <> pg_current_xact_id()::xid
  ) then
    raise exception 'nothing is added to a seal that is there: a correction is a new revision';
  end if;
  return null;
end $$;
create trigger sealed_row_whole after insert on sealed_row referencing new table as added
  for each statement execute function refuse_late_seal_row();
create trigger seal_tree_whole after insert on seal_tree referencing new table as added
  for each statement execute function refuse_late_seal_row();

create function refuse_late_points() returns trigger language plpgsql as $$
begin
  if exists (
    select from (select distinct commit_id from added) a left join points_commit c using (commit_id)
    where c.xmin is distinct from pg_current_xact_id()::xid
  ) then
    raise exception 'nothing is added to a commit that is there: a correction is a new revision';
  end if;
  return null;
end $$;
create trigger points_whole after insert on points referencing new table as added
  for each statement execute function refuse_late_points();
create trigger points_share_whole after insert on points_share referencing new table as added
  for each statement execute function refuse_late_points();
create trigger points_total_whole after insert on points_total referencing new table as added
  for each statement execute function refuse_late_points();
create trigger points_correction_whole after insert on points_correction referencing new table as added
  for each statement execute function refuse_late_points();

-- migrate:down

drop trigger points_correction_whole on points_correction;
drop trigger points_total_whole on points_total;
drop trigger points_share_whole on points_share;
drop trigger points_whole on points;
drop trigger seal_tree_whole on seal_tree;
drop trigger sealed_row_whole on sealed_row;
drop function refuse_late_points, refuse_late_seal_row;

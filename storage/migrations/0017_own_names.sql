-- migrate:up

-- A trigger's function looks for tables where ours are, whatever the session has put before them: with a
-- temporary table of its own named seal, a session could add rows to a seal that is there.
do $$
declare fn regprocedure;
begin
  for fn in select oid from pg_proc
    where pronamespace = current_schema()::regnamespace and prorettype = 'trigger'::regtype
  loop
    execute format('alter function %s set search_path = %I, pg_temp', fn, current_schema());
  end loop;
end $$;

-- migrate:down

do $$
declare fn regprocedure;
begin
  for fn in select oid from pg_proc
    where pronamespace = current_schema()::regnamespace and prorettype = 'trigger'::regtype
  loop
    execute format('alter function %s reset search_path', fn);
  end loop;
end $$;

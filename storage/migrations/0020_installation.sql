-- migrate:up

-- What those who run the installation look at: dead letters of all channels, and the audit log by who, what and whom.
create index delivery_dead on delivery (delivery_id) where state = 'dead';
create index letter_dead on letter (letter_id) where state = 'dead';
create index audit_actor on audit (actor, seq);
create index audit_action on audit (action, seq);
create index audit_subject on audit (subject, seq);

-- Whether anybody may see how the project is, without signing in: its status page and badges.
alter table project add column public_status boolean not null default false;

-- Windows that last or are to come, of all nodes of a project.
create index maintenance_end on maintenance_window (to_ms);

-- migrate:down

drop index maintenance_end;
alter table project drop column public_status;
drop index audit_subject, audit_action, audit_actor, letter_dead, delivery_dead;

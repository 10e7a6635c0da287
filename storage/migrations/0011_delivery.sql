-- migrate:up

-- `endpoint`: where connections of a channel go, of which each may hold only so many at a time; `circuit`: the
-- same per owner, which is left alone when it fails in a row (worker/circuits.py). Empty: never limited.
-- `unsubscribe_token`: in the link of each mail, by which whoever gets it ends it (RFC 8058).
-- `no_announcements_ms`: the recipient wants no announcements there any more. `disabled_note`: why it is disabled.
alter table channel
  drop constraint channel_kind_check,
  add constraint channel_kind_check check (kind in ('webhook', 'mail', 'apprise')),
  add column endpoint text not null generated always as (
    case kind
      when 'webhook' then coalesce(lower(substring(target from '^[A-Za-z]+://[^/?#]+')), '')
      when 'apprise' then 'apprise:' || channel_id::text
      else ''
    end) stored,
  add column circuit text not null generated always as (
    case kind
      when 'webhook' then coalesce(project_id, user_id)::text || ' '
        || coalesce(lower(substring(target from '^[A-Za-z]+://[^/?#]+')), '')
      when 'apprise' then 'apprise:' || channel_id::text
      else ''
    end) stored,
  add column unsubscribe_token text not null default
    replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''),
  add column no_announcements_ms bigint,
  add column disabled_note text not null default '';
create unique index channel_unsubscribe on channel (unsubscribe_token);

-- `kind`, `endpoint`, `circuit`: the channel's, so that claims go by one index in the order of their being due,
-- whatever the planner believes. `attempted_ms`: the first attempt. `replays`: how often somebody had a dead letter sent again.
alter table delivery
  add column kind text not null default '',
  add column endpoint text not null default '',
  add column circuit text not null default '',
  add column attempted_ms bigint,
  add column replays integer not null default 0;
update delivery d set kind = c.kind, endpoint = c.endpoint, circuit = c.circuit
from channel c where c.channel_id = d.channel_id and d.state = 'due';
drop index delivery_due;
create index delivery_due on delivery (kind, due_ms, delivery_id) where state = 'due';
create index delivery_circuit on delivery (circuit, due_ms, delivery_id) where state = 'due' and circuit <> '';
create index delivery_of_channel on delivery (channel_id, delivery_id);

-- When mails to an address were sent: the newest ones, as many as the hour may have.
create table mail_budget (
  address text primary key,
  sent_ms bigint[] not null
);

-- What an admin or a project's owner told the operators of nodes; the notice has the same id.
create table announcement (
  announcement_id uuid primary key,
  project_id uuid references project, -- null: of the installation
  title text not null,
  text text not null,
  filter text not null, -- JSON, as it was asked
  actor text not null,
  created_ms bigint not null,
  nodes integer not null,
  people integer not null,
  channels integer not null
);
create index announcement_project on announcement (project_id, announcement_id);

-- migrate:down

drop table announcement, mail_budget;
drop index delivery_of_channel, channel_unsubscribe, delivery_due, delivery_circuit;
create index delivery_due on delivery (due_ms) where state = 'due';
alter table delivery drop column attempted_ms, drop column replays, drop column kind, drop column endpoint,
  drop column circuit;
delete from delivery where channel_id in (select channel_id from channel where kind = 'apprise');
delete from channel where kind = 'apprise';
alter table channel drop column endpoint, drop column circuit, drop column unsubscribe_token,
  drop column no_announcements_ms, drop column disabled_note, drop constraint channel_kind_check,
  add constraint channel_kind_check check (kind in ('webhook', 'mail'));

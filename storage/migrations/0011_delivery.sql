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
create index channel_circuit on channel (circuit);

-- `attempted_ms`: the first attempt. `replays`: how often somebody had a dead letter sent again.
alter table delivery
  add column attempted_ms bigint,
  add column replays integer not null default 0;
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
drop index delivery_of_channel, channel_unsubscribe, channel_circuit;
alter table delivery drop column attempted_ms, drop column replays;
delete from delivery where channel_id in (select channel_id from channel where kind = 'apprise');
delete from channel where kind = 'apprise';
alter table channel drop column endpoint, drop column circuit, drop column unsubscribe_token,
  drop column no_announcements_ms, drop column disabled_note, drop constraint channel_kind_check,
  add constraint channel_kind_check check (kind in ('webhook', 'mail'));

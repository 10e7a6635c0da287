-- migrate:up

-- Whether an address takes mail of an owner of channels (a project or a person). Of a person's own channel to the
-- address of their account nothing is asked and nothing kept.
create table mail_consent (
  owner_id uuid not null,
  address text not null check (address = lower(address)),
  token_sha256 bytea unique, -- of the newest letter; null: none is open
  letter_id uuid,
  asked_ms bigint, -- when that was written
  asked_announcements boolean not null default false, -- it asks for announcements only
  confirmed_ms bigint,
  refused_ms bigint, -- unsubscribed since
  no_announcements_ms bigint, -- from announcements
  primary key (owner_id, address)
);
create index mail_consent_asked on mail_consent (address, asked_ms) where asked_ms is not null;

-- Who ended it before this was kept.
insert into mail_consent (owner_id, address, refused_ms, no_announcements_ms)
select coalesce(c.project_id, c.user_id), lower(c.target),
  max(c.disabled_ms) filter (where c.disabled_note = 'its recipient unsubscribed'), max(c.no_announcements_ms)
from channel c left join account a using (user_id)
where c.kind = 'mail' and a.email is distinct from lower(c.target)
  and (c.no_announcements_ms is not null or c.disabled_note = 'its recipient unsubscribed')
group by 1, 2;

-- Since when a channel waits for its recipient to confirm it; it is disabled meanwhile, so whoever asks only for
-- that tells nothing there.
alter table channel add column unconfirmed_ms bigint,
  add constraint channel_unconfirmed check (unconfirmed_ms is null or disabled_ms is not null);

-- Of each owner at an address for itself. Empty: of all owners together.
alter table mail_budget drop constraint mail_budget_pkey, add column owner text not null default '',
  add primary key (address, owner);

-- migrate:down

delete from mail_budget where owner <> '';
alter table mail_budget drop constraint mail_budget_pkey, drop column owner, add primary key (address);
alter table channel drop constraint channel_unconfirmed, drop column unconfirmed_ms;
drop table mail_consent;

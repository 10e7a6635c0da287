-- migrate:up

-- People. Wallets and addresses are kept in lower case: they are compared as they stand.
create table account (
  user_id uuid primary key,
  name text not null default '',
  wallet text unique check (wallet ~ '^0x[0-9a-f]{40}$'),
  email text unique check (email = lower(email)),
  admin boolean not null default false,
  created_ms bigint not null,
  retired_ms bigint,
  check (wallet is not null or email is not null)
);

-- What somebody must answer to sign in: a wallet's nonce, or the secret of a mailed link. Works once.
create table challenge (
  secret_sha256 bytea primary key,
  kind text not null check (kind in ('wallet', 'mail')),
  email text,
  created_ms bigint not null,
  expires_ms bigint not null,
  used_ms bigint,
  check ((kind = 'mail') = (email is not null))
);
create index challenge_expiry on challenge (expires_ms);
create index challenge_email on challenge (email, created_ms) where email is not null;

create table login (
  login_id uuid primary key,
  token_sha256 bytea not null unique,
  user_id uuid not null references account,
  created_ms bigint not null,
  expires_ms bigint not null,
  revoked_ms bigint
);
create index login_user on login (user_id);

-- Mail of our own, such as a link to sign in. The text goes when it is settled: it holds a secret.
create table letter (
  letter_id uuid primary key,
  address text not null,
  subject text not null,
  body text not null,
  state text not null default 'due' check (state in ('due', 'sent', 'dead')),
  attempts integer not null default 0,
  due_ms bigint not null,
  created_ms bigint not null,
  settled_ms bigint,
  note text not null default ''
);
create index letter_due on letter (due_ms) where state = 'due';

alter table api_key
  drop constraint api_key_scope_check,
  drop constraint api_key_check,
  add column user_id uuid references account,
  add column permissions text[] not null default '{read,write,points}',
  add column expires_ms bigint,
  add column last_used_ms bigint,
  add constraint api_key_scope_check check (scope in ('admin', 'project', 'user')),
  add constraint api_key_project_check check ((scope = 'project') = (project_id is not null)),
  add constraint api_key_user_check check ((scope = 'user') = (user_id is not null));

-- Who did what. Each entry carries the hash of the one before it; `detail` is the JSON text that was hashed.
create table audit (
  seq bigint primary key,
  at_ms bigint not null,
  actor text not null,
  action text not null,
  subject text not null,
  project_id uuid,
  request_id text not null,
  detail text not null,
  previous bytea not null,
  hash bytea not null
);
create index audit_project on audit (project_id, seq);
create trigger audit_append_only before update or delete or truncate on audit
  for each statement execute function refuse_change();

-- POSTs that create, by the credential that sent them. `made_id` is the id of what is made, also when the
-- request is run a second time after a crash; `answer` is sealed with a key only the caller has.
create table idempotency (
  credential text not null,
  key text not null,
  request_sha256 bytea not null, -- method, path and body
  made_id uuid not null,
  begun_ms bigint not null,
  lease_ms bigint not null, -- until then somebody is working on it
  status integer, -- null: not answered yet
  answer bytea,
  primary key (credential, key)
);
create index idempotency_age on idempotency (begun_ms);

alter table project
  add column name text not null default '',
  add column retired_ms bigint;

create table project_owner (
  project_id uuid not null references project,
  user_id uuid not null references account,
  created_ms bigint not null,
  primary key (project_id, user_id)
);
create index project_owner_user on project_owner (user_id);

-- What holds for a project from a UTC day on. Nothing is changed: of one day the highest revision holds.
create table project_policy (
  project_id uuid not null references project,
  effective_from date not null,
  revision integer not null,
  uptime_source text not null check (uptime_source in ('native', 'datagram')),
  pay_claims boolean not null,
  reward text not null, -- JSON, engine/core/catalog.py RewardRule
  created_ms bigint not null,
  actor text not null,
  primary key (project_id, effective_from, revision)
);

create table workload_kind (
  kind_id uuid primary key,
  project_id uuid not null references project,
  slug text not null check (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name text not null,
  minimum_version text,
  created_ms bigint not null,
  retired_ms bigint,
  unique (project_id, slug)
);

create table workload_version (
  version_id uuid primary key,
  kind_id uuid not null references workload_kind,
  version text not null,
  manifest text not null,
  digest text not null, -- sha256:<hex> of the manifest's UTF-8 bytes
  rollout_percent integer not null check (rollout_percent between 0 and 100),
  created_ms bigint not null,
  withdrawn_ms bigint,
  unique (kind_id, version)
);

-- Nodes with workloads of this kind are to be looked at again, in order of their ids, after `after_node`.
create table rollout_task (
  kind_id uuid primary key references workload_kind,
  after_node uuid not null default '00000000-0000-0000-0000-000000000000',
  before text not null, -- JSON: what was offered when the first change that waits was asked for
  asked_ms bigint not null
);

-- Versions of the manager itself.
create table manager_release (
  version text primary key,
  url text not null,
  sha256 text not null,
  signature text not null,
  rollout_percent integer not null check (rollout_percent between 0 and 100),
  created_ms bigint not null,
  withdrawn_ms bigint
);

-- Contracts whose tokens are licences (erc721) or only balances (erc20), and how far they were read.
create table collection (
  collection_id uuid primary key,
  project_id uuid not null references project,
  chain_id bigint not null,
  contract text not null check (contract ~ '^0x[0-9a-f]{40}$'),
  standard text not null check (standard in ('erc721', 'erc20')),
  name text not null,
  subgraph_url text not null default '', -- empty: ownership.url of the configuration
  preset text not null default '', -- empty: ownership.preset of the configuration
  created_ms bigint not null,
  retired_ms bigint,
  synced_block bigint, -- everything up to this block is in
  synced_hash text,
  block_ms bigint, -- the time of that block
  checked_ms bigint, -- the last look that succeeded
  swept_ms bigint, -- the last full pass
  sync_error text not null default '',
  unique (chain_id, contract)
);

create table licence (
  licence_id uuid primary key,
  collection_id uuid not null references collection,
  project_id uuid not null references project,
  token_id numeric(78, 0) not null check (token_id >= 0),
  owner text check (owner ~ '^0x[0-9a-f]{40}$'), -- now; null: burned
  turned_block bigint not null default 0, -- at which our books of it last changed; 0: not since the first pass
  created_ms bigint not null,
  retired_ms bigint,
  unique (collection_id, token_id)
);
create index licence_project on licence (project_id, licence_id);
create index licence_owner on licence (owner, licence_id);

-- Who owned a licence when, by block time: half-open, to_ms null = still does.
create table ownership (
  licence_id uuid not null references licence,
  from_ms bigint not null,
  from_block bigint not null,
  to_ms bigint check (to_ms > from_ms),
  owner text not null check (owner ~ '^0x[0-9a-f]{40}$'),
  recorded_ms bigint not null,
  primary key (licence_id, from_ms)
);

create table balance (
  collection_id uuid not null references collection,
  owner text not null check (owner ~ '^0x[0-9a-f]{40}$'),
  amount numeric(78, 0) not null check (amount >= 0),
  block bigint not null,
  primary key (collection_id, owner)
);
create index balance_owner on balance (owner);

alter table node
  add column owner_id uuid references account,
  add column region text not null default '',
  add column manager_version text not null default '', -- of the newest session
  add column partner_node_id text unique, -- what Datagram calls it
  add column desired_digest bytea, -- of the desired state that its manager fetched last
  add column resync boolean not null default false; -- tell its manager to fetch the desired state
create index node_owner on node (owner_id, node_id);
create index node_public_key on node (public_key) where public_key is not null;

alter table workload
  add column project_id uuid references project,
  add column kind_id uuid references workload_kind,
  add column licence_id uuid references licence,
  add column running_version text, -- as its manager reported it
  add column running_reported_ms bigint,
  add column below_minimum_ms bigint, -- since when, as it was told
  add column restarts integer not null default 0; -- ordered so far; part of the desired state
update workload w set project_id = n.project_id from node n where n.node_id = w.node_id;
alter table workload alter column project_id set not null;
create index workload_project on workload (project_id, workload_id);
create index workload_kind_of on workload (kind_id, node_id) where kind_id is not null;
create index workload_licence on workload (licence_id) where licence_id is not null;

alter table maintenance_window add column ordered boolean not null default false; -- for an ordered update

-- What NodePulse ordered that restarts a workload; each opens at most one window, when a manager fetches it.
create table workload_order (
  workload_id uuid not null references workload,
  what text not null, -- the version's id, or restart:<which>:<id of the request>
  window_id uuid references maintenance_window, -- null: not fetched yet, or there was no room for one
  ordered_ms bigint not null,
  done_ms bigint,
  primary key (workload_id, what)
);

alter table claim add column generation integer, add column received_ms bigint;

-- A channel is a project's or a person's. Empty `event_kinds`: all that are told at all.
alter table channel
  alter column project_id drop not null,
  add column user_id uuid references account,
  add column name text not null default '',
  add column event_kinds text[] not null default '{}',
  add column removed_ms bigint, -- by its owner; disabled_ms alone: the receiver wants no more
  add constraint channel_owner_check check ((project_id is null) <> (user_id is null));
create index channel_project on channel (project_id);
create index channel_user on channel (user_id);

create table notification_setting (
  user_id uuid primary key references account,
  down_delay_s integer not null default 300 check (down_delay_s between 0 and 86400),
  quiet_from text check (quiet_from ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'), -- local time, HH:MM
  quiet_to text check (quiet_to ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$'),
  time_zone text not null default 'UTC',
  daily_report boolean not null default false,
  weekly_report boolean not null default true,
  check ((quiet_from is null) = (quiet_to is null))
);

create index event_node on event (node_id, cursor) where node_id is not null;

-- migrate:down

drop index event_node;
drop table notification_setting;
delete from delivery where channel_id in (select channel_id from channel where project_id is null);
delete from channel where project_id is null;
alter table channel drop constraint channel_owner_check, drop column user_id, drop column name,
  drop column event_kinds, drop column removed_ms, alter column project_id set not null;
drop index channel_project;
alter table claim drop column generation, drop column received_ms;
drop table workload_order;
alter table maintenance_window drop column ordered;
alter table workload drop column project_id, drop column kind_id, drop column licence_id,
  drop column running_version, drop column running_reported_ms, drop column below_minimum_ms,
  drop column restarts;
drop index node_public_key;
alter table node drop column owner_id, drop column region, drop column manager_version,
  drop column partner_node_id, drop column desired_digest, drop column resync;
drop table balance, ownership, licence, collection, manager_release, rollout_task, workload_version,
  workload_kind, project_policy, project_owner;
alter table project drop column name, drop column retired_ms;
drop table idempotency, audit;
delete from api_key where scope = 'user';
alter table api_key drop constraint api_key_scope_check, drop constraint api_key_project_check,
  drop constraint api_key_user_check, drop column user_id, drop column permissions, drop column expires_ms,
  drop column last_used_ms, add constraint api_key_scope_check check (scope in ('admin', 'project')),
  add constraint api_key_check check ((scope = 'project') = (project_id is not null));
drop table letter, login, challenge, account;

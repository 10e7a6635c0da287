-- migrate:up

-- Public keys that receipts were or are signed with; the private ones are derived from the master secrets and
-- stored nowhere. A key stays for ever: whoever holds a receipt must find it.
create table receipt_key (
  secret_id smallint not null check (secret_id between 1 and 255),
  counter integer not null check (counter >= 1), -- another secret under an id that was used before
  public_key bytea not null unique check (length(public_key) = 32),
  from_ms bigint not null,
  primary key (secret_id, counter)
);

-- The key that signs the receipts of a seal, settled by whoever asked first: each receipt is always the same.
create table receipt_seal (
  seal_no bigint primary key references seal,
  secret_id smallint not null,
  counter integer not null,
  foreign key (secret_id, counter) references receipt_key
);

create function refuse_receipt_change() returns trigger language plpgsql as $$
begin
  raise exception 'keys of receipts are never changed or removed';
end $$;
create trigger receipt_key_append_only before update or delete or truncate on receipt_key
  for each statement execute function refuse_receipt_change();
create trigger receipt_seal_append_only before update or delete or truncate on receipt_seal
  for each statement execute function refuse_receipt_change();

-- The root of a seal on its way to a place where it is published. One row per seal and target.
create table root_publication (
  seal_no bigint not null references seal,
  target text not null check (target in ('file', 'webhook', 's3', 'evm')),
  state text not null default 'due' check (state in ('due', 'done')),
  attempts integer not null default 0,
  due_ms bigint not null, -- the next attempt; while one is under way, when another worker may take it over
  note text not null default '', -- what came of the last attempt
  prepared text, -- evm: the transaction for its signer, JSON
  changed_ms bigint not null,
  primary key (seal_no, target)
);
create index root_publication_due on root_publication (target, due_ms) where state = 'due';

-- migrate:down

drop table root_publication, receipt_seal, receipt_key;
drop function refuse_receipt_change;

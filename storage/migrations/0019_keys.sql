-- migrate:up

-- What a key is told by, who made it, and which one it took the place of. Of keys that were there before only
-- the log knows who made them.
alter table api_key add column prefix text not null default '', -- the beginning of the secret
  add column made_by text not null default '',
  add column replaces uuid references api_key;
update api_key k set made_by = a.actor from audit a where a.action = 'key.create' and a.subject = k.key_id::text;

-- migrate:down

alter table api_key drop column prefix, drop column made_by, drop column replaces;

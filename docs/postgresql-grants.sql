-- The rights of the relay's three roles on PostgreSQL: as little as each one's statements need.
-- Create the users first: CREATE ROLE relay_api LOGIN PASSWORD '...'; likewise relay_watch and relay_push.
-- Run this as the owner of the tables after every `relay migrate`:
--     psql --single-transaction --set ON_ERROR_STOP=1 --file postgresql-grants.sql relay

SET search_path = pg_catalog, pg_temp;
SET client_min_messages = warning;
DO $relay$
DECLARE
    trap text;
BEGIN
    FOR trap IN WITH found AS (
    SELECT 'function ' || oid::regprocedure::text AS name, proowner AS owner, pronamespace AS place FROM pg_proc
    UNION ALL SELECT 'operator ' || oid::regoperator::text, oprowner, oprnamespace FROM pg_operator
    UNION ALL SELECT 'type ' || oid::regtype::text, typowner, typnamespace FROM pg_type WHERE typtype IN ('d', 'e', 'r')
    UNION ALL SELECT 'relation ' || oid::regclass::text, relowner, relnamespace FROM pg_class
)
SELECT found.name || ' of ' || pg_get_userbyid(found.owner) AS trap FROM found
JOIN pg_namespace AS schema ON schema.oid = found.place AND schema.nspname = 'public'
JOIN pg_roles AS owning ON owning.oid = found.owner
WHERE NOT owning.rolsuper
    AND found.owner <> (SELECT relowner FROM pg_class WHERE oid = 'public.mailbox'::regclass)
    AND found.owner <> (SELECT datdba FROM pg_database WHERE datname = current_database())
    LOOP
        RAISE EXCEPTION 'schema public holds a %: drop it first, another role could run it unawares', trap;
    END LOOP;
END $relay$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, relay_api, relay_watch, relay_push;
REVOKE ALL ON SCHEMA public FROM PUBLIC, relay_api, relay_watch, relay_push;
GRANT USAGE ON SCHEMA public TO relay_api, relay_watch, relay_push;
DO $relay$
DECLARE
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'public.mailbox'::regclass);
BEGIN
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', owner);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, relay_api, relay_watch, relay_push', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I, relay_api, relay_watch, relay_push', current_database(), owner);
END $relay$;

GRANT SELECT ("id", "server", "user", "device_id", "shard", "state", "reason", "detail", "since", "next_try_at", "last_ping_at", "heartbeat", "last_change_at", "user_key", "candidate_refusals", "candidate_refused_at", "paused_at", "retry", "forgotten") ON public.mailbox TO relay_api;
GRANT SELECT ("mailbox_id", "changed_at") ON public.collection TO relay_api;
GRANT INSERT ("id", "server", "user", "user_key", "device_id", "shard", "state", "since", "dirty") ON public.mailbox TO relay_api;
GRANT UPDATE ("dirty", "paused_at", "retry", "forgotten") ON public.mailbox TO relay_api;
GRANT SELECT ON public.registration TO relay_api;
GRANT DELETE ON public.registration TO relay_api;
GRANT INSERT ("id", "mailbox_id", "secret_hash", "app", "platform", "environment", "device_token", "token_hash", "token_since", "classes", "subfolders", "mode", "locale", "state", "created_at", "credential_proof", "must_prove") ON public.registration TO relay_api;
GRANT UPDATE ("device_token", "token_hash", "token_since", "environment", "classes", "subfolders", "mode", "locale", "state", "candidate_refused", "tested_at", "idle_since", "seen_at", "credential_proof", "must_prove", "challenge_hash", "quarantined_at", "quarantine_reason", "quarantine_remedy", "rechecks", "recheck_at", "refused_at") ON public.registration TO relay_api;
GRANT SELECT ("registration_id", "account") ON public.candidate TO relay_api;
GRANT INSERT ON public.candidate TO relay_api;
GRANT DELETE ON public.candidate TO relay_api;
GRANT SELECT ON public.tries TO relay_api;
GRANT SELECT ON public.outbox TO relay_api;
GRANT INSERT ("registration_id", "mark", "platform", "count", "generation", "certain", "first_at", "last_at", "due_at", "attempts", "cause") ON public.outbox TO relay_api;
GRANT UPDATE ("count", "generation", "certain", "last_at", "due_at", "cause", "aside") ON public.outbox TO relay_api;
GRANT DELETE ON public.outbox TO relay_api;
GRANT SELECT ON public.push_test TO relay_api;
GRANT DELETE ON public.push_test TO relay_api;
GRANT INSERT ("id", "registration_id", "asked_at") ON public.push_test TO relay_api;
GRANT UPDATE ("state", "ended_at") ON public.push_test TO relay_api;
GRANT SELECT ON public.tombstone TO relay_api;
GRANT INSERT ON public.tombstone TO relay_api;
GRANT DELETE ON public.tombstone TO relay_api;
GRANT UPDATE ("until") ON public.tombstone TO relay_api;
GRANT SELECT ON public.event TO relay_api;
GRANT DELETE ON public.event TO relay_api;
GRANT SELECT ON public.wipe TO relay_api;
GRANT INSERT ON public.maintenance TO relay_api;
GRANT DELETE ON public.maintenance TO relay_api;
GRANT SELECT ("id", "registration_id", "tried_at", "refused_at") ON public.canary TO relay_api;
GRANT INSERT ("id") ON public.canary TO relay_api;
GRANT UPDATE ("registration_id", "device", "tried_at", "refused_at", "refusal") ON public.canary TO relay_api;
GRANT SELECT ON public.mailbox TO relay_watch;
GRANT DELETE ON public.mailbox TO relay_watch;
GRANT UPDATE ("sealed_credential", "accepted", "version", "policy_key", "hierarchy_key", "informed", "acknowledged", "url", "horizon", "state", "reason", "detail", "since", "next_try_at", "refusals", "candidate_refusals", "candidate_refused_at", "last_ping_at", "heartbeat", "last_change_at", "dirty", "retry") ON public.mailbox TO relay_watch;
GRANT SELECT ON public.collection TO relay_watch;
GRANT INSERT ON public.collection TO relay_watch;
GRANT UPDATE ON public.collection TO relay_watch;
GRANT DELETE ON public.collection TO relay_watch;
GRANT SELECT ON public.hierarchy TO relay_watch;
GRANT INSERT ON public.hierarchy TO relay_watch;
GRANT DELETE ON public.hierarchy TO relay_watch;
GRANT SELECT ("id", "mailbox_id", "platform", "classes", "subfolders", "state", "proved_at", "token_hash", "must_prove", "last_push_at", "app", "environment", "quarantine_reason", "quarantine_remedy", "recheck_at") ON public.registration TO relay_watch;
GRANT UPDATE ("state", "candidate_refused", "proved_at") ON public.registration TO relay_watch;
GRANT DELETE ON public.registration TO relay_watch;
GRANT SELECT ON public.candidate TO relay_watch;
GRANT DELETE ON public.candidate TO relay_watch;
GRANT UPDATE ("sealed", "account") ON public.candidate TO relay_watch;
GRANT SELECT ON public.outbox TO relay_watch;
GRANT DELETE ON public.outbox TO relay_watch;
GRANT INSERT ("registration_id", "mark", "platform", "count", "generation", "certain", "first_at", "last_at", "due_at", "attempts", "cause") ON public.outbox TO relay_watch;
GRANT UPDATE ("count", "generation", "certain", "last_at", "due_at", "cause") ON public.outbox TO relay_watch;
GRANT UPDATE ("owner", "epoch", "lease_until") ON public.shard TO relay_watch;
GRANT INSERT ON public.node TO relay_watch;
GRANT UPDATE ON public.node TO relay_watch;
GRANT DELETE ON public.node TO relay_watch;
GRANT SELECT ON public.tries TO relay_watch;
GRANT INSERT ON public.tries TO relay_watch;
GRANT UPDATE ON public.tries TO relay_watch;
GRANT DELETE ON public.tries TO relay_watch;
GRANT SELECT ON public.wipe TO relay_watch;
GRANT INSERT ON public.wipe TO relay_watch;
GRANT DELETE ON public.wipe TO relay_watch;
GRANT SELECT ON public.path TO relay_watch;
GRANT INSERT ON public.path TO relay_watch;
GRANT UPDATE ON public.path TO relay_watch;
GRANT SELECT ON public.sealed_anew TO relay_watch;
GRANT INSERT ON public.sealed_anew TO relay_watch;
GRANT SELECT ("id", "refusal", "holder", "sent_at", "mail_refused_at") ON public.canary TO relay_watch;
GRANT INSERT ("id") ON public.canary TO relay_watch;
GRANT UPDATE ("holder", "sent_at", "mail_refused_at") ON public.canary TO relay_watch;
GRANT SELECT ON public.canary_shown TO relay_watch;
GRANT DELETE ON public.canary_shown TO relay_watch;
GRANT SELECT ON public.key_holder TO relay_api;
GRANT INSERT ON public.key_holder TO relay_api;
GRANT UPDATE ON public.key_holder TO relay_api;
GRANT DELETE ON public.key_holder TO relay_api;
GRANT SELECT ON public.key_holder TO relay_watch;
GRANT INSERT ON public.key_holder TO relay_watch;
GRANT UPDATE ON public.key_holder TO relay_watch;
GRANT DELETE ON public.key_holder TO relay_watch;
GRANT SELECT ("id", "server", "state", "reason", "paused_at") ON public.mailbox TO relay_push;
GRANT UPDATE ("dirty") ON public.mailbox TO relay_push;
GRANT SELECT ("id", "app", "platform", "environment", "device_token", "token_since", "mode", "locale", "state", "mailbox_id", "last_push_at", "last_outcome", "pushed", "quarantined_at", "quarantine_reason", "quarantine_remedy", "rechecks", "recheck_at", "refused_at") ON public.registration TO relay_push;
GRANT UPDATE ("state", "last_push_at", "last_outcome", "pushed", "quarantined_at", "quarantine_reason", "quarantine_remedy", "rechecks", "recheck_at", "refused_at") ON public.registration TO relay_push;
GRANT UPDATE ("challenge_hash", "challenged_at") ON public.registration TO relay_push;
GRANT SELECT ON public.challenged TO relay_push;
GRANT INSERT ON public.challenged TO relay_push;
GRANT UPDATE ON public.challenged TO relay_push;
GRANT DELETE ON public.challenged TO relay_push;
GRANT DELETE ON public.registration TO relay_push;
GRANT SELECT ON public.outbox TO relay_push;
GRANT DELETE ON public.outbox TO relay_push;
GRANT UPDATE ("claimed_by", "claimed_until", "due_at", "attempts", "paced", "aside", "count", "first_at") ON public.outbox TO relay_push;
GRANT SELECT ("registration_id", "state") ON public.push_test TO relay_push;
GRANT UPDATE ("state", "reason", "channel", "ended_at") ON public.push_test TO relay_push;
GRANT SELECT ("id", "registration_id", "device") ON public.canary TO relay_push;
GRANT INSERT ON public.canary_shown TO relay_api;
GRANT INSERT ON public.canary_shown TO relay_push;
GRANT INSERT ("at", "mailbox_id", "registration_id", "account", "kind", "what", "through", "result", "code", "count") ON public.event TO relay_api;
GRANT INSERT ("at", "mailbox_id", "registration_id", "account", "kind", "what", "through", "result", "code", "count") ON public.event TO relay_watch;
GRANT INSERT ("at", "mailbox_id", "registration_id", "account", "kind", "what", "through", "result", "code", "count") ON public.event TO relay_push;
GRANT SELECT ON public.act TO relay_api;
GRANT INSERT ON public.act TO relay_api;
GRANT SELECT ON public.act TO relay_watch;
GRANT INSERT ON public.act TO relay_watch;
GRANT SELECT ON public.shard TO relay_api;
GRANT SELECT ON public.node TO relay_api;
GRANT SELECT ON public.maintenance TO relay_api;
GRANT SELECT ON public.shard TO relay_watch;
GRANT SELECT ON public.node TO relay_watch;
GRANT SELECT ON public.maintenance TO relay_watch;
GRANT SELECT ON public.shard TO relay_push;
GRANT SELECT ON public.node TO relay_push;
GRANT SELECT ON public.maintenance TO relay_push;
GRANT SELECT ON public.alembic_version TO relay_api;
GRANT SELECT ON public.alembic_version TO relay_watch;
GRANT SELECT ON public.alembic_version TO relay_push;

CREATE OR REPLACE FUNCTION public.relay_forbid() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $relay$
BEGIN
    RAISE EXCEPTION 'permission denied: % may not do this to table %', current_user, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', HINT = TG_NAME;
END $relay$;
REVOKE ALL ON FUNCTION public.relay_forbid() FROM PUBLIC;

DROP TRIGGER IF EXISTS api_inserts_unproved ON public.registration;
CREATE TRIGGER api_inserts_unproved BEFORE INSERT ON public.registration FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.state <> 'verifying')) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_activates_nothing ON public.registration;
CREATE TRIGGER api_activates_nothing BEFORE UPDATE ON public.registration FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.state <> OLD.state AND NOT (OLD.state = 'credential-refused' AND NEW.state = 'verifying') AND NOT (OLD.state IN ('active', 'token-gone') AND NEW.state = 'proving') AND NOT (OLD.state = 'proving' AND NEW.state = 'active') AND NOT (OLD.state = 'token-gone' AND NEW.state = 'active' AND (NEW.device_token <> OLD.device_token OR NEW.token_since <> OLD.token_since)))) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS push_ends_tokens_only ON public.registration;
CREATE TRIGGER push_ends_tokens_only BEFORE UPDATE ON public.registration FOR EACH ROW
    WHEN (current_user = 'relay_push' AND (NEW.state <> OLD.state AND NOT (OLD.state IN ('active', 'proving') AND NEW.state = 'token-gone'))) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS push_deletes_wiped_only ON public.registration;
CREATE TRIGGER push_deletes_wiped_only BEFORE DELETE ON public.registration FOR EACH ROW
    WHEN (current_user = 'relay_push' AND (OLD.state <> 'wiped')) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_inserts_mailboxes_unproved ON public.mailbox;
CREATE TRIGGER api_inserts_mailboxes_unproved BEFORE INSERT ON public.mailbox FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.state <> 'verifying' OR NOT NEW.dirty)) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_clears_no_flag ON public.mailbox;
CREATE TRIGGER api_clears_no_flag BEFORE UPDATE ON public.mailbox FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NOT NEW.dirty)) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS push_clears_no_flag ON public.mailbox;
CREATE TRIGGER push_clears_no_flag BEFORE UPDATE ON public.mailbox FOR EACH ROW
    WHEN (current_user = 'relay_push' AND (NOT NEW.dirty)) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_sets_test_marks_only ON public.outbox;
CREATE TRIGGER api_sets_test_marks_only BEFORE INSERT ON public.outbox FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.mark NOT IN ('test', 'challenge'))) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_notes_its_own_keys ON public.key_holder;
CREATE TRIGGER api_notes_its_own_keys BEFORE INSERT ON public.key_holder FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.role <> 'api')) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_changes_its_own_keys ON public.key_holder;
CREATE TRIGGER api_changes_its_own_keys BEFORE UPDATE ON public.key_holder FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (NEW.role <> 'api' OR OLD.role <> 'api')) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_removes_its_own_keys ON public.key_holder;
CREATE TRIGGER api_removes_its_own_keys BEFORE DELETE ON public.key_holder FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (OLD.role <> 'api')) EXECUTE FUNCTION public.relay_forbid();
DROP TRIGGER IF EXISTS api_deletes_challenges_only ON public.outbox;
CREATE TRIGGER api_deletes_challenges_only BEFORE DELETE ON public.outbox FOR EACH ROW
    WHEN (current_user = 'relay_api' AND (OLD.mark <> 'challenge')) EXECUTE FUNCTION public.relay_forbid();

DO $relay$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['relay_api', 'relay_watch', 'relay_push']
    LOOP
        IF (SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication FROM pg_roles WHERE rolname = role) THEN
            RAISE EXCEPTION '% has attributes of an administrator: ALTER ROLE % NOSUPERUSER NOBYPASSRLS NOCREATEROLE'
                ' NOREPLICATION', role, role;
        END IF;
        IF EXISTS (SELECT 1 FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.member WHERE r.rolname = role)
        THEN
            RAISE EXCEPTION '% is a member of another role, and so has its rights: REVOKE that role', role;
        END IF;
        IF has_schema_privilege(role, 'public', 'CREATE')
            OR has_database_privilege(role, current_database(), 'CREATE')
            OR has_database_privilege(role, current_database(), 'TEMPORARY')
        THEN
            RAISE EXCEPTION '% can still create objects: run these statements as the owner of the database and of'
                ' schema public, on PostgreSQL 14 and older as a superuser', role;
        END IF;
    END LOOP;
END $relay$;

RESET client_min_messages;
RESET search_path;

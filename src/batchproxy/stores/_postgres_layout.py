"""What a `PostgresStore` has in its schema: tables, and a function beside each step."""

from __future__ import annotations

VERSION = 1
MARK = "batchproxy store, layout "

# A namespace is named by a digest of its name, which the client makes: so no step has to look it
# up. The keys come first in the indexes: nothing then tempts the planner to read all that a
# namespace has. What must go on as fast when a table has grown since it was planned for is told
# which plans not to take.
#
# Claims and leases are not in the write-ahead log. They are gone after a crash of the server, and
# with them what the dead have left. There is no claim without a lease: both are made in one step,
# the lease first, and a lease that ends takes the claims along. Leases are by the server's clock; a
# process has one in each namespace. One ends in two halves, as `SharedStore` says: the first begins
# when it is renewed, the second when it is doubted; `ends` is the end of the present one.
#
# Nothing waits for ever: rows are locked in the order of their keys, which those who write send in
# that order; what is not needed at once is skipped where it is locked; and a step never waits for
# values while it has claims, nor for the lock of those who claim while it has leases. Each step is
# a transaction of its own, so no lock waits for a client.
_LAYOUT = """
CREATE TABLE {schema}.namespaces (namespace uuid PRIMARY KEY, name bytea NOT NULL);
COMMENT ON TABLE {schema}.namespaces IS '{mark}';
CREATE TABLE {schema}.results (
    key bytea NOT NULL,
    namespace uuid NOT NULL,
    value bytea NOT NULL,
    expires timestamptz,
    PRIMARY KEY (key, namespace)
);
CREATE INDEX results_expires ON {schema}.results (expires) WHERE expires IS NOT NULL;
CREATE UNLOGGED TABLE {schema}.leases (
    namespace uuid NOT NULL,
    process text NOT NULL,
    ends timestamptz NOT NULL,
    half interval NOT NULL,
    doubted boolean NOT NULL,
    PRIMARY KEY (namespace, process)
) WITH (fillfactor = 50);
CREATE UNLOGGED TABLE {schema}.claims (
    key bytea NOT NULL,
    namespace uuid NOT NULL,
    process text NOT NULL,
    call bigint NOT NULL,
    PRIMARY KEY (key, namespace)
);

CREATE FUNCTION {schema}.get(_space uuid, _keys bytea[])
RETURNS TABLE (_key bytea, _value bytea) {plpgsql} AS $$
BEGIN
    RETURN QUERY SELECT key, value FROM {schema}.results
    WHERE namespace = _space AND key = ANY (_keys) AND {live};
END $$;

-- Leases that have run out end, and those that may have are doubted.
CREATE FUNCTION {schema}.doubt(_space uuid, _process text) RETURNS void {plpgsql} AS $$
DECLARE
    _dead text[];
BEGIN
    {lock};
    WITH late AS MATERIALIZED (
        SELECT process FROM {schema}.leases WHERE {late} AND doubted FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM {schema}.leases AS l USING late
        WHERE l.namespace = _space AND l.process = late.process RETURNING l.process
    ) SELECT array_agg(process) INTO _dead FROM ended;
    IF _dead IS NOT NULL THEN
        WITH ended AS MATERIALIZED (
            SELECT key FROM {schema}.claims
            WHERE namespace = _space AND process = ANY (_dead) ORDER BY key FOR UPDATE
        ) DELETE FROM {schema}.claims AS c USING ended
        WHERE c.namespace = _space AND c.key = ended.key;
    END IF;
    WITH late AS MATERIALIZED (
        SELECT process FROM {schema}.leases WHERE {late} AND NOT doubted FOR UPDATE SKIP LOCKED
    ) UPDATE {schema}.leases AS l SET ends = clock_timestamp() + half, doubted = true FROM late
    WHERE l.namespace = _space AND l.process = late.process;
END $$;

CREATE FUNCTION {schema}.renew(_space uuid, _process text, _half interval)
RETURNS void {plpgsql} AS $$
BEGIN
    INSERT INTO {schema}.leases
    VALUES (_space, _process, clock_timestamp() + _half, _half, false)
    ON CONFLICT (namespace, process) DO UPDATE
    SET ends = excluded.ends, half = excluded.half, doubted = false;
END $$;

-- Keys come twice: sorted, as they are found fastest, and in order, to claim the first. In the
-- answer they have a value; or are held by others; or else are claimed. Where others are quicker a
-- key may be there twice: then what it is now comes last.
CREATE FUNCTION {schema}.claim(
    _space uuid, _keys bytea[], _in_order bytea[], _process text, _call bigint, _half interval,
    _limit bigint
) RETURNS TABLE (_key bytea, _value bytea, _held boolean) {plpgsql} AS $$
DECLARE
    _seen bigint;
    _mine bytea[];
BEGIN
    IF EXISTS (SELECT FROM {schema}.leases WHERE {late}) THEN
        PERFORM {schema}.doubt(_space, _process);
    END IF;
    -- First without the lock: who finds that others have all of it goes on, and holds up nobody.
    RETURN QUERY{look};
    GET DIAGNOSTICS _seen = ROW_COUNT;
    IF _limit = 0 OR _seen >= cardinality(_keys) THEN
        RETURN;
    END IF;
    {lock};
    PERFORM {schema}.renew(_space, _process, _half);
    -- Values and claims of one moment: where a value has taken the place of a claim, both changed
    -- together. Nobody else has claimed anything since that moment.
    WITH free AS (
        SELECT w.key FROM unnest(_in_order) WITH ORDINALITY AS w (key, place)
        WHERE w.key NOT IN (
            SELECT key FROM {schema}.results
            WHERE namespace = _space AND key = ANY (_keys) AND {live}
        ) AND w.key NOT IN (
            SELECT key FROM {schema}.claims
            WHERE namespace = _space AND key = ANY (_keys) AND process <> _process
        ) ORDER BY place LIMIT _limit
    ), mine AS (
        INSERT INTO {schema}.claims AS c
        SELECT sorted.key, _space, _process, _call FROM (SELECT key FROM free ORDER BY key) sorted
        ON CONFLICT (key, namespace) DO UPDATE SET call = excluded.call
        WHERE c.process = excluded.process
        RETURNING c.key
    ) SELECT coalesce(array_agg(mine.key), '{{}}') INTO _mine FROM mine;
    IF cardinality(_mine) < _limit AND _seen + cardinality(_mine) < cardinality(_keys) THEN
        RETURN QUERY{look};
    END IF;
    RETURN QUERY SELECT mine.key, NULL::bytea, false FROM unnest(_mine) AS mine (key);
END $$;

CREATE FUNCTION {schema}.release(_space uuid, _keys bytea[], _process text, _call bigint)
RETURNS void {plpgsql} AS $$
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT key FROM {schema}.claims
        WHERE namespace = _space AND key = ANY (_keys) AND process = _process AND call = _call
        ORDER BY key FOR UPDATE
    ) DELETE FROM {schema}.claims AS c USING ended
    WHERE c.namespace = _space AND c.key = ended.key;
END $$;

-- For whom there is a claimant, values that are there stay, and are the answer.
CREATE FUNCTION {schema}.write(
    _space uuid, _name bytea, _keys bytea[], _values bytea[], _ttl double precision,
    _durable boolean, _process text, _call bigint
) RETURNS TABLE (_key bytea, _value bytea) {plpgsql} AS $$
DECLARE
    _expires timestamptz := clock_timestamp() + _ttl * interval '1 second';
    _written bigint;
BEGIN
    IF NOT _durable THEN
        SET LOCAL synchronous_commit = off;
    END IF;
    IF NOT EXISTS (SELECT FROM {schema}.namespaces WHERE namespace = _space) THEN
        INSERT INTO {schema}.namespaces VALUES (_space, _name) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO {schema}.results AS r
    SELECT w.key, _space, w.value, _expires FROM unnest(_keys, _values) AS w (key, value)
    ON CONFLICT (key, namespace) DO UPDATE SET value = excluded.value, expires = excluded.expires
    WHERE _process IS NULL OR r.expires <= clock_timestamp();
    GET DIAGNOSTICS _written = ROW_COUNT;
    IF _written < cardinality(_keys) THEN  -- what was not written is locked, and so still there
        RETURN QUERY SELECT key, value FROM {schema}.results
        WHERE namespace = _space AND key = ANY (_keys)
        AND xmin::text <> (pg_current_xact_id()::xid)::text;
    END IF;
    IF _process IS NOT NULL THEN
        PERFORM {schema}.release(_space, _keys, _process, _call);
    END IF;
    DELETE FROM {schema}.results WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.results WHERE expires <= clock_timestamp()
        LIMIT 2 * cardinality(_keys) FOR UPDATE SKIP LOCKED
    ));
END $$;

-- Of all values, or of those that are still as they were found.
CREATE FUNCTION {schema}.delete(_space uuid, _keys bytea[], _values bytea[])
RETURNS void {plpgsql} AS $$
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT r.key FROM unnest(_keys, _values) AS w (key, value)
        JOIN {schema}.results AS r ON r.namespace = _space AND r.key = w.key
        WHERE _values IS NULL OR r.value = w.value ORDER BY r.key FOR UPDATE OF r
    ) DELETE FROM {schema}.results AS r USING ended
    WHERE r.namespace = _space AND r.key = ended.key;
END $$;

-- A page of what comes after a key; the last key of it.
CREATE FUNCTION {schema}.clear(_space uuid, _after bytea, _most integer)
RETURNS bytea {plpgsql} AS $$
DECLARE
    _last bytea;
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT key FROM {schema}.results
        WHERE namespace = _space AND key > _after ORDER BY key LIMIT _most FOR UPDATE
    ), gone AS (
        DELETE FROM {schema}.results AS r USING ended
        WHERE r.namespace = _space AND r.key = ended.key
    ) SELECT key INTO _last FROM ended ORDER BY key DESC LIMIT 1;
    RETURN _last;
END $$;

CREATE FUNCTION {schema}.scan(_space uuid, _after bytea, _most integer)
RETURNS TABLE (_key bytea, _value bytea) {plpgsql} AS $$
BEGIN
    RETURN QUERY SELECT key, value FROM {schema}.results
    WHERE namespace = _space AND key > _after AND {live} ORDER BY key LIMIT _most;
END $$;
"""

_LIVE = "(expires IS NULL OR expires > clock_timestamp())"

_LOOK = """
    WITH found AS MATERIALIZED (
        SELECT key, value FROM {schema}.results
        WHERE namespace = _space AND key = ANY (_keys) AND {live}
    )
    SELECT key, value, false FROM found
    UNION ALL SELECT key, NULL, true FROM {schema}.claims
    WHERE namespace = _space AND key = ANY (_keys) AND process <> _process
    AND key NOT IN (SELECT key FROM found)"""

_LATE = "namespace = _space AND ends <= clock_timestamp() AND process <> _process"

_LOCK = (
    "PERFORM pg_advisory_xact_lock('{schema}.claims'::regclass::oid::integer, uuid_hash(_space))"
)

_PLPGSQL = (
    "LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off "
    "SET enable_bitmapscan = off SET jit = off"
)


def statements(schema: str) -> bytes:
    """What makes all of it in an empty schema."""
    quoted = f'"{schema}"'
    return _LAYOUT.format(
        schema=quoted,
        mark=f"{MARK}{VERSION}",
        live=_LIVE,
        look=_LOOK.format(schema=quoted, live=_LIVE),
        late=_LATE,
        lock=_LOCK.format(schema=quoted),
        plpgsql=_PLPGSQL,
    ).encode()

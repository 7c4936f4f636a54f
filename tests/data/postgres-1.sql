CREATE SCHEMA layout_1;
CREATE FUNCTION layout_1.claim(_space uuid, _keys bytea[], _in_order bytea[], _process text, _call bigint, _half interval, _limit bigint) RETURNS TABLE(_key bytea, _value bytea, _held boolean)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    _seen bigint;
    _mine bytea[];
BEGIN
    IF EXISTS (SELECT FROM "layout_1".leases WHERE namespace = _space AND ends <= clock_timestamp() AND process <> _process) THEN
        PERFORM "layout_1".doubt(_space, _process);
    END IF;
    -- First without the lock: who finds that others have all of it goes on, and holds up nobody.
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT key, value FROM "layout_1".results
        WHERE namespace = _space AND key = ANY (_keys) AND (expires IS NULL OR expires > clock_timestamp())
    )
    SELECT key, value, false FROM found
    UNION ALL SELECT key, NULL, true FROM "layout_1".claims
    WHERE namespace = _space AND key = ANY (_keys) AND process <> _process
    AND key NOT IN (SELECT key FROM found);
    GET DIAGNOSTICS _seen = ROW_COUNT;
    IF _limit = 0 OR _seen >= cardinality(_keys) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock('"layout_1".claims'::regclass::oid::integer, uuid_hash(_space));
    PERFORM "layout_1".renew(_space, _process, _half);
    -- Values and claims of one moment: where a value has taken the place of a claim, both changed
    -- together. Nobody else has claimed anything since that moment.
    WITH free AS (
        SELECT w.key FROM unnest(_in_order) WITH ORDINALITY AS w (key, place)
        WHERE w.key NOT IN (
            SELECT key FROM "layout_1".results
            WHERE namespace = _space AND key = ANY (_keys) AND (expires IS NULL OR expires > clock_timestamp())
        ) AND w.key NOT IN (
            SELECT key FROM "layout_1".claims
            WHERE namespace = _space AND key = ANY (_keys) AND process <> _process
        ) ORDER BY place LIMIT _limit
    ), mine AS (
        INSERT INTO "layout_1".claims AS c
        SELECT sorted.key, _space, _process, _call FROM (SELECT key FROM free ORDER BY key) sorted
        ON CONFLICT (key, namespace) DO UPDATE SET call = excluded.call
        WHERE c.process = excluded.process
        RETURNING c.key
    ) SELECT coalesce(array_agg(mine.key), '{}') INTO _mine FROM mine;
    IF cardinality(_mine) < _limit AND _seen + cardinality(_mine) < cardinality(_keys) THEN
        RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT key, value FROM "layout_1".results
        WHERE namespace = _space AND key = ANY (_keys) AND (expires IS NULL OR expires > clock_timestamp())
    )
    SELECT key, value, false FROM found
    UNION ALL SELECT key, NULL, true FROM "layout_1".claims
    WHERE namespace = _space AND key = ANY (_keys) AND process <> _process
    AND key NOT IN (SELECT key FROM found);
    END IF;
    RETURN QUERY SELECT mine.key, NULL::bytea, false FROM unnest(_mine) AS mine (key);
END $$;
CREATE FUNCTION layout_1.clear(_space uuid, _after bytea, _most integer) RETURNS bytea
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    _last bytea;
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT key FROM "layout_1".results
        WHERE namespace = _space AND key > _after ORDER BY key LIMIT _most FOR UPDATE
    ), gone AS (
        DELETE FROM "layout_1".results AS r USING ended
        WHERE r.namespace = _space AND r.key = ended.key
    ) SELECT key INTO _last FROM ended ORDER BY key DESC LIMIT 1;
    RETURN _last;
END $$;
CREATE FUNCTION layout_1.delete(_space uuid, _keys bytea[], _values bytea[]) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT r.key FROM unnest(_keys, _values) AS w (key, value)
        JOIN "layout_1".results AS r ON r.namespace = _space AND r.key = w.key
        WHERE _values IS NULL OR r.value = w.value ORDER BY r.key FOR UPDATE OF r
    ) DELETE FROM "layout_1".results AS r USING ended
    WHERE r.namespace = _space AND r.key = ended.key;
END $$;
CREATE FUNCTION layout_1.doubt(_space uuid, _process text) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    _dead text[];
BEGIN
    PERFORM pg_advisory_xact_lock('"layout_1".claims'::regclass::oid::integer, uuid_hash(_space));
    WITH late AS MATERIALIZED (
        SELECT process FROM "layout_1".leases WHERE namespace = _space AND ends <= clock_timestamp() AND process <> _process AND doubted FOR UPDATE SKIP LOCKED
    ), ended AS (
        DELETE FROM "layout_1".leases AS l USING late
        WHERE l.namespace = _space AND l.process = late.process RETURNING l.process
    ) SELECT array_agg(process) INTO _dead FROM ended;
    IF _dead IS NOT NULL THEN
        WITH ended AS MATERIALIZED (
            SELECT key FROM "layout_1".claims
            WHERE namespace = _space AND process = ANY (_dead) ORDER BY key FOR UPDATE
        ) DELETE FROM "layout_1".claims AS c USING ended
        WHERE c.namespace = _space AND c.key = ended.key;
    END IF;
    WITH late AS MATERIALIZED (
        SELECT process FROM "layout_1".leases WHERE namespace = _space AND ends <= clock_timestamp() AND process <> _process AND NOT doubted FOR UPDATE SKIP LOCKED
    ) UPDATE "layout_1".leases AS l SET ends = clock_timestamp() + half, doubted = true FROM late
    WHERE l.namespace = _space AND l.process = late.process;
END $$;
CREATE FUNCTION layout_1.get(_space uuid, _keys bytea[]) RETURNS TABLE(_key bytea, _value bytea)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    RETURN QUERY SELECT key, value FROM "layout_1".results
    WHERE namespace = _space AND key = ANY (_keys) AND (expires IS NULL OR expires > clock_timestamp());
END $$;
CREATE FUNCTION layout_1.release(_space uuid, _keys bytea[], _process text, _call bigint) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    WITH ended AS MATERIALIZED (
        SELECT key FROM "layout_1".claims
        WHERE namespace = _space AND key = ANY (_keys) AND process = _process AND call = _call
        ORDER BY key FOR UPDATE
    ) DELETE FROM "layout_1".claims AS c USING ended
    WHERE c.namespace = _space AND c.key = ended.key;
END $$;
CREATE FUNCTION layout_1.renew(_space uuid, _process text, _half interval) RETURNS void
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    INSERT INTO "layout_1".leases
    VALUES (_space, _process, clock_timestamp() + _half, _half, false)
    ON CONFLICT (namespace, process) DO UPDATE
    SET ends = excluded.ends, half = excluded.half, doubted = false;
END $$;
CREATE FUNCTION layout_1.scan(_space uuid, _after bytea, _most integer) RETURNS TABLE(_key bytea, _value bytea)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
    RETURN QUERY SELECT key, value FROM "layout_1".results
    WHERE namespace = _space AND key > _after AND (expires IS NULL OR expires > clock_timestamp()) ORDER BY key LIMIT _most;
END $$;
CREATE FUNCTION layout_1.write(_space uuid, _name bytea, _keys bytea[], _values bytea[], _ttl double precision, _durable boolean, _process text, _call bigint) RETURNS TABLE(_key bytea, _value bytea)
    LANGUAGE plpgsql
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
    _expires timestamptz := clock_timestamp() + _ttl * interval '1 second';
    _written bigint;
BEGIN
    IF NOT _durable THEN
        SET LOCAL synchronous_commit = off;
    END IF;
    IF NOT EXISTS (SELECT FROM "layout_1".namespaces WHERE namespace = _space) THEN
        INSERT INTO "layout_1".namespaces VALUES (_space, _name) ON CONFLICT DO NOTHING;
    END IF;
    INSERT INTO "layout_1".results AS r
    SELECT w.key, _space, w.value, _expires FROM unnest(_keys, _values) AS w (key, value)
    ON CONFLICT (key, namespace) DO UPDATE SET value = excluded.value, expires = excluded.expires
    WHERE _process IS NULL OR r.expires <= clock_timestamp();
    GET DIAGNOSTICS _written = ROW_COUNT;
    IF _written < cardinality(_keys) THEN  -- what was not written is locked, and so still there
        RETURN QUERY SELECT key, value FROM "layout_1".results
        WHERE namespace = _space AND key = ANY (_keys)
        AND xmin::text <> (pg_current_xact_id()::xid)::text;
    END IF;
    IF _process IS NOT NULL THEN
        PERFORM "layout_1".release(_space, _keys, _process, _call);
    END IF;
    DELETE FROM "layout_1".results WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM "layout_1".results WHERE expires <= clock_timestamp()
        LIMIT 2 * cardinality(_keys) FOR UPDATE SKIP LOCKED
    ));
END $$;
CREATE UNLOGGED TABLE layout_1.claims (
    key bytea NOT NULL,
    namespace uuid NOT NULL,
    process text NOT NULL,
    call bigint NOT NULL
);
CREATE UNLOGGED TABLE layout_1.leases (
    namespace uuid NOT NULL,
    process text NOT NULL,
    ends timestamp with time zone NOT NULL,
    half interval NOT NULL,
    doubted boolean NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE layout_1.namespaces (
    namespace uuid NOT NULL,
    name bytea NOT NULL
);
COMMENT ON TABLE layout_1.namespaces IS 'batchproxy store, layout 1';
CREATE TABLE layout_1.results (
    key bytea NOT NULL,
    namespace uuid NOT NULL,
    value bytea NOT NULL,
    expires timestamp with time zone
);
INSERT INTO layout_1.claims VALUES ('\x3be24248b993bda9df2c16813f1880a56023f548', '944d0143-b581-d42f-8b3d-1503014a642a', 'gone', 1);
INSERT INTO layout_1.leases VALUES ('944d0143-b581-d42f-8b3d-1503014a642a', 'gone', '1970-01-01 00:00:00+00', '00:00:05', true);
INSERT INTO layout_1.namespaces VALUES ('944d0143-b581-d42f-8b3d-1503014a642a', '\x706c61696e2f31207bc3a97d');
INSERT INTO layout_1.namespaces VALUES ('478fabd0-76ea-0263-cea8-2760436374b7', '\x6d736773706563');
INSERT INTO layout_1.namespaces VALUES ('7095295c-515f-d51b-46ec-d060c515e372', '\x707964616e746963');
INSERT INTO layout_1.namespaces VALUES ('21ecbea1-c201-a847-8329-c2acb9bbaa80', '\x7069636b6c65');
INSERT INTO layout_1.namespaces VALUES ('46b289ad-ae98-9658-ed3d-2afa9fbff99d', '\x6e756d7079');
INSERT INTO layout_1.results VALUES ('\x2b91f5286741c9e34865fd34beaaea6de54282b1', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a37', NULL);
INSERT INTO layout_1.results VALUES ('\x32984699906a9f6f58cb6becf66a5a2c19f7e51c', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a33', NULL);
INSERT INTO layout_1.results VALUES ('\x48076d745d4e616ef9305e21ed32343860539fcc', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6262797465732000ff', NULL);
INSERT INTO layout_1.results VALUES ('\x4d3a3368f5aa056b590c5fe4b157ba03b9e0f18a', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a34', NULL);
INSERT INTO layout_1.results VALUES ('\x5092cae00b55507df638414116a5977c0889b895', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a35', NULL);
INSERT INTO layout_1.results VALUES ('\x512ab4e7d5fe17f6d15975292398879753c08ae9', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a2d302e30', NULL);
INSERT INTO layout_1.results VALUES ('\x691352060cafd992e5ef37e2dd2ded0078442d0f', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a31313830353931363230373137343131333033343234', NULL);
INSERT INTO layout_1.results VALUES ('\x6981ebbb0806f153d0b8077d5eba9cb8636067ca', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a36', NULL);
INSERT INTO layout_1.results VALUES ('\x6c13f0fd60cc4c81fc7502b5c25040e400f97f75', '944d0143-b581-d42f-8b3d-1503014a642a', '\x747465787420c3a9', NULL);
INSERT INTO layout_1.results VALUES ('\x8fd2e008f3ab993b22b338a511d9363848e3d542', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a31', NULL);
INSERT INTO layout_1.results VALUES ('\xb795d32e2efba7a89ff2c3737b159e25cb9bc099', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a32', NULL);
INSERT INTO layout_1.results VALUES ('\xe9538d1fea75a1e81881a214d22d23102020da0c', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a5b5d', NULL);
INSERT INTO layout_1.results VALUES ('\xef10aa9c5f2ffc6991a62db3447235eb8fa219eb', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a7b2261223a7b2262223a5b312c322e352c6e756c6c2c747275652c22c3a9225d7d7d', NULL);
INSERT INTO layout_1.results VALUES ('\xf984de8162d3fc39c8bb199629d30a23a12e3a6c', '944d0143-b581-d42f-8b3d-1503014a642a', '\x6a6e756c6c', NULL);
INSERT INTO layout_1.results VALUES ('\xbe1c46d7bc4b2c2b1dc9f04cdc1fb32abca38d7f', '478fabd0-76ea-0263-cea8-2760436374b7', '\x6d9201a161', NULL);
INSERT INTO layout_1.results VALUES ('\xbe1c46d7bc4b2c2b1dc9f04cdc1fb32abca38d7f', '7095295c-515f-d51b-46ec-d060c515e372', '\x705b322c2262225d', NULL);
INSERT INTO layout_1.results VALUES ('\xbe1c46d7bc4b2c2b1dc9f04cdc1fb32abca38d7f', '21ecbea1-c201-a847-8329-c2acb9bbaa80', '\x6b8005952e000000000000008c086275696c74696e73948c07636f6d706c6578949394473ff0000000000000474000000000000000869452942e', NULL);
INSERT INTO layout_1.results VALUES ('\xbe1c46d7bc4b2c2b1dc9f04cdc1fb32abca38d7f', '46b289ad-ae98-9658-ed3d-2afa9fbff99d', '\x6e934e554d50590300740000007b276465736372273a20277c7531272c2027666f727472616e5f6f72646572273a2046616c73652c20277368617065273a2028322c292c207d202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020202020200a3102', NULL);
ALTER TABLE ONLY layout_1.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (key, namespace);
ALTER TABLE ONLY layout_1.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (namespace, process);
ALTER TABLE ONLY layout_1.namespaces
    ADD CONSTRAINT namespaces_pkey PRIMARY KEY (namespace);
ALTER TABLE ONLY layout_1.results
    ADD CONSTRAINT results_pkey PRIMARY KEY (key, namespace);
CREATE INDEX results_expires ON layout_1.results USING btree (expires) WHERE (expires IS NOT NULL);

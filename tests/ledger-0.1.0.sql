-- A ledger as Housekeeper 0.1.0 made it; {instant} is the database's type of an instant.
CREATE TABLE housekeeper_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
INSERT INTO housekeeper_meta
    VALUES ('identity','4c41a2ca1a5304de91708eb576be3e3c');
CREATE TABLE housekeeper_pauses (
    task TEXT NOT NULL,
    paused_at {instant} NOT NULL,
    resumed_at {instant} NOT NULL,
    PRIMARY KEY (task, paused_at)
);
INSERT INTO housekeeper_pauses
    VALUES ('/backup','2026-03-01T00:02:03.000000Z','2026-03-01T00:02:13.000000Z');
CREATE TABLE housekeeper_runs (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    reason TEXT NOT NULL,
    status TEXT NOT NULL,
    runner TEXT NOT NULL,
    scheduled_for {instant},
    started_at {instant},
    finished_at {instant},
    heartbeat_at {instant},
    attempt INTEGER NOT NULL DEFAULT 1,
    count INTEGER NOT NULL DEFAULT 1,
    note TEXT NOT NULL DEFAULT '',
    error TEXT NOT NULL DEFAULT '',
    output TEXT NOT NULL DEFAULT '',
    progress TEXT,
    stop_asked_at {instant},
    stop_reason TEXT NOT NULL DEFAULT ''
);
INSERT INTO housekeeper_runs
    VALUES ('019ca6b2c6600000541f4a29','/sweep','schedule','succeeded',
    'old:1:aaaaaa','2026-03-01T00:01:00.000000Z','2026-03-01T00:01:00.000000Z','2026-03-01T00:01:01.500000Z','2026-03-01T00:01:00.000000Z',
    1,1,'','','done',NULL,NULL,'');
INSERT INTO housekeeper_runs
    VALUES ('019ca6b3b0c00001541f4a29','/sweep','schedule','failed',
    'old:1:aaaaaa','2026-03-01T00:02:00.000000Z','2026-03-01T00:02:00.000000Z','2026-03-01T00:02:01.500000Z','2026-03-01T00:02:00.000000Z',
    1,1,'ValueError: no such file','','done',NULL,NULL,'');
INSERT INTO housekeeper_runs
    VALUES ('019ca6b3b69c0002541f4a29','/sweep','manual','succeeded',
    'old:1:aaaaaa',NULL,'2026-03-01T00:02:01.500000Z','2026-03-01T00:02:03.000000Z','2026-03-01T00:02:01.500000Z',
    1,1,'','','done',NULL,NULL,'');
INSERT INTO housekeeper_runs
    VALUES ('019ca6eaf9180003541f4a29','/report@beta','schedule','running',
    'old:1:aaaaaa','2026-03-01T01:00:00.000000Z','2026-03-01T01:02:23.000000Z',NULL,'2026-03-01T01:02:23.000000Z',
    1,1,'','','','[3, 7, "rows"]',NULL,'');
CREATE TABLE housekeeper_tasks (
    name TEXT PRIMARY KEY,
    schedule TEXT NOT NULL,
    timezone TEXT NOT NULL,
    since {instant} NOT NULL,
    startup_at {instant},
    startup_by TEXT,
    paused_at {instant}
);
INSERT INTO housekeeper_tasks
    VALUES ('/backup','0 2 * * *','Europe/Berlin','2026-03-01T00:02:13.000000Z',NULL,NULL,NULL);
INSERT INTO housekeeper_tasks
    VALUES ('/report@alpha','0 * * * *','UTC','2026-03-01T00:00:00.000000Z',NULL,NULL,'2026-03-01T00:02:23.000000Z');
INSERT INTO housekeeper_tasks
    VALUES ('/report@beta','0 * * * *','UTC','2026-03-01T00:00:00.000000Z',NULL,NULL,NULL);
INSERT INTO housekeeper_tasks
    VALUES ('/sweep','* * * * *','UTC','2026-03-01T00:00:00.000000Z',NULL,NULL,'2026-03-01T00:02:23.000000Z');
CREATE UNIQUE INDEX housekeeper_runs_one_per_tick
    ON housekeeper_runs (task, scheduled_for);
CREATE UNIQUE INDEX housekeeper_runs_one_running
    ON housekeeper_runs (task) WHERE status = 'running';
CREATE INDEX housekeeper_runs_by_task ON housekeeper_runs (task, id);

"""The tables, as one SQL script per version; ``user_version`` is the number of scripts applied."""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE clusters (
      id INTEGER PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, nodes INTEGER NOT NULL,
      ephemeral INTEGER NOT NULL, created_at TEXT NOT NULL, ended_at TEXT);
    CREATE UNIQUE INDEX clusters_live ON clusters (name) WHERE ended_at IS NULL;
    CREATE TABLE rentals (
      token TEXT PRIMARY KEY, cluster_id INTEGER NOT NULL REFERENCES clusters, rank INTEGER NOT NULL,
      state TEXT NOT NULL, provider TEXT NOT NULL, instance_type TEXT NOT NULL, market TEXT NOT NULL,
      region TEXT, zone TEXT, gpu TEXT, gpu_count INTEGER NOT NULL,
      usd_micros_per_hour INTEGER, currency TEXT NOT NULL, amount TEXT,
      intended_at TEXT NOT NULL, instance_id TEXT, instance_region TEXT, ssh TEXT, slots INTEGER,
      planted_key TEXT, host_key TEXT, host_key_source TEXT, expires_at TEXT, gone_at TEXT, reason TEXT);
    CREATE INDEX rentals_open ON rentals (cluster_id) WHERE gone_at IS NULL;
    CREATE TABLE journal (
      id INTEGER PRIMARY KEY, at TEXT NOT NULL, token TEXT NOT NULL REFERENCES rentals,
      event TEXT NOT NULL, detail TEXT);
    CREATE TABLE ledger (
      id INTEGER PRIMARY KEY, at TEXT NOT NULL, token TEXT NOT NULL REFERENCES rentals,
      usd_micros_per_hour INTEGER, currency TEXT NOT NULL, amount TEXT);
    CREATE INDEX ledger_token ON ledger (token, id);
    CREATE TABLE pins (
      alias TEXT PRIMARY KEY, host_key TEXT NOT NULL, source TEXT NOT NULL, at TEXT NOT NULL);
    CREATE TABLE refusals (
      provider TEXT NOT NULL, instance_type TEXT NOT NULL, place TEXT NOT NULL, market TEXT NOT NULL,
      reason TEXT NOT NULL, until TEXT NOT NULL, PRIMARY KEY (provider, instance_type, place, market));
    CREATE TABLE jobs (
      id TEXT PRIMARY KEY, cluster_id INTEGER NOT NULL REFERENCES clusters, name TEXT NOT NULL,
      command TEXT NOT NULL, state TEXT NOT NULL, workdir TEXT, outputs TEXT NOT NULL,
      attempts INTEGER NOT NULL, created_at TEXT NOT NULL, started_at TEXT, ended_at TEXT,
      exit_code INTEGER, outputs_verified_at TEXT);
    CREATE INDEX jobs_cluster ON jobs (cluster_id);
    """,
    """
    ALTER TABLE clusters ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE clusters ADD COLUMN project TEXT NOT NULL DEFAULT '';
    ALTER TABLE clusters ADD COLUMN user TEXT NOT NULL DEFAULT '';
    ALTER TABLE clusters ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE clusters ADD COLUMN held_micros INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE rentals ADD COLUMN disk_gib INTEGER;
    ALTER TABLE rentals ADD COLUMN tariff TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE ledger ADD COLUMN line TEXT NOT NULL DEFAULT 'instance';
    ALTER TABLE ledger ADD COLUMN boot TEXT NOT NULL DEFAULT '';
    ALTER TABLE ledger ADD COLUMN ticks INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE charges (
      id INTEGER PRIMARY KEY, at TEXT NOT NULL, token TEXT NOT NULL REFERENCES rentals,
      line TEXT NOT NULL, usd_micros INTEGER, note TEXT NOT NULL);
    CREATE INDEX charges_token ON charges (token, id);
    """,
    """
    ALTER TABLE rentals ADD COLUMN waits_s REAL;
    CREATE TABLE bookings (
      token TEXT PRIMARY KEY, name TEXT NOT NULL, state TEXT NOT NULL, intended_at TEXT NOT NULL,
      project TEXT NOT NULL, user TEXT NOT NULL, tags TEXT NOT NULL,
      provider TEXT NOT NULL, block TEXT NOT NULL, instance_type TEXT NOT NULL, nodes INTEGER NOT NULL,
      region TEXT NOT NULL, zone TEXT NOT NULL, gpu TEXT, gpu_count INTEGER NOT NULL,
      starts_at TEXT NOT NULL, ends_at TEXT NOT NULL, usd_micros INTEGER NOT NULL,
      upfront_micros INTEGER NOT NULL, currency TEXT NOT NULL, amount TEXT,
      reservation_id TEXT, reservation_region TEXT, reason TEXT);
    """,
)

#!/bin/sh
# Runs once, when PostgreSQL makes its data: the collectors' role with its password, and the statistics.
# `pgwitness db install` adds everything else.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set password="$(cat /run/secrets/collector_password)" <<'SQL'
CREATE ROLE pgwitness LOGIN REPLICATION PASSWORD :'password';
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE orders (id bigserial PRIMARY KEY, customer text NOT NULL, amount numeric NOT NULL);
SQL

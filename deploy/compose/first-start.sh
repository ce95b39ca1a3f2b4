#!/bin/sh
# Runs once, when PostgreSQL makes its data: the collectors' role with its password, the gateway's, and the statistics.
# `pgwitness db install` adds everything else.
set -eu
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --set password="$(cat /run/secrets/collector_password)" \
    --set gateway="$(cat /run/secrets/gateway_password)" <<'SQL'
CREATE ROLE pgwitness LOGIN REPLICATION PASSWORD :'password';
CREATE ROLE pgwitness_gateway LOGIN PASSWORD :'gateway';
CREATE FUNCTION public.pgwitness_verifier(name text) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
  AS 'SELECT rolpassword FROM pg_authid WHERE rolname = name AND rolcanlogin AND NOT rolsuper';
REVOKE ALL ON FUNCTION public.pgwitness_verifier(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.pgwitness_verifier(text) TO pgwitness_gateway;
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
CREATE TABLE orders (id bigserial PRIMARY KEY, customer text NOT NULL, amount numeric NOT NULL);
SQL

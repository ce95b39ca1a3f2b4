#!/bin/sh
# Liquibase's command line on the database that libpq's environment names; `twice` updates from two processes at once.
set -eu
export LIQUIBASE_COMMAND_CHANGELOG_FILE=changelog.sql
liquibase() {
    java -cp "$HONEST_JARS/*" liquibase.integration.commandline.LiquibaseCommandLine --log-level=warning \
        --show-banner=false --analytics-enabled=false --search-path=. "$@" \
        --url="jdbc:postgresql://$PGHOST:$PGPORT/$PGDATABASE" --username="$PGUSER" --password=none
}
if [ "$1" = twice ]; then
    liquibase update >"twice.log" 2>&1 &
    liquibase update
    wait $!
else
    liquibase "$@"
fi

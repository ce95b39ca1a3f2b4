#!/bin/sh
# Flyway's command line on the database that libpq's environment names; `twice` migrates from two processes at once.
set -eu
flyway() {
    java -cp "$HONEST_JARS/*" org.flywaydb.commandline.Main -url="jdbc:postgresql://$PGHOST:$PGPORT/$PGDATABASE" \
        -user="$PGUSER" -locations=filesystem:sql -postgresql.transactional.lock=false -cleanDisabled=false \
        -placeholders.again="${AGAIN:-first}" "$@"
}
if [ "$1" = twice ]; then
    flyway migrate >"twice.log" 2>&1 &
    flyway migrate
    wait $!
else
    flyway "$@"
fi

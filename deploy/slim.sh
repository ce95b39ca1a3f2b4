#!/bin/sh
# Takes out of an installed Python environment what no daemon ever loads: tests, headers, type stubs and Arrow Flight.
# Usage: slim.sh ENVIRONMENT. Shared libraries that others are linked to stay; the last line proves what is left.
set -eu
packages=$(echo "$1"/lib/python3*/site-packages)
find "$packages" -type d -name tests -prune -exec rm -r {} +
find "$packages" -type f \( -name '*.pyi' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pxi' \
    -o -name '*.c' -o -name '*.a' -o -name '*.lib' \) -delete
rm -rf "$packages"/pyarrow/include "$packages"/pyarrow/src
rm -f "$packages"/pyarrow/libarrow_flight* "$packages"/pyarrow/_flight* "$packages"/pyarrow/flight.py
"$1"/bin/python -c 'import pyarrow.parquet, pyarrow.fs, pyarrow.compute, duckdb, river.anomaly, faust, confluent_kafka, pglast, cel'

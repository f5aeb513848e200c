# What one does here every day; `just` alone lists it.

default:
    @just --list

# The daemon, with its defaults
run *arguments:
    cargo run --release -- run {{arguments}}

# The main job in a minute
demo:
    cargo run --release -- demo

# All tests, and what they need
test *arguments:
    tests/run {{arguments}}

# Writes the golden files anew; status and plan twice, because the second reads what the first wrote. Review the diff.
golden:
    KEYWRIGHT_GOLDEN=renew cargo nextest run --lib -E 'test(golden) + test(reviewed)'
    KEYWRIGHT_GOLDEN=renew cargo nextest run --lib -E 'test(/^cli::golden/)'

# What CI does
ci:
    .ci/run

bench:
    cargo bench

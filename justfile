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

# What CI does
ci:
    .ci/run

bench:
    cargo bench

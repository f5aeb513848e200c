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

# So many lives of the simulator, from a seed on, optimised (`just sim 100000`)
sim lives="2000" from="0":
    KEYWRIGHT_SIM_SEEDS={{lives}} KEYWRIGHT_SIM_FROM={{from}} cargo test --locked --profile sim --test simulation -- lives_keep_all_promises --nocapture

# One life, told line by line
sim-seed seed:
    KEYWRIGHT_SIM_SEED={{seed}} cargo test --locked --profile sim --test simulation -- one_seed_is_one_life --nocapture

# The deliberate faults, and which life noticed each
sim-mutants lives="300":
    KEYWRIGHT_SIM_MUTANT_SEEDS={{lives}} cargo test --locked --profile sim --test simulation -- faults_of_ours --nocapture

# So many cases of each parser's fuzz target, from a seed on, optimised (`just fuzz 1000000`)
fuzz cases="100000" from="0":
    KEYWRIGHT_FUZZ_CASES={{cases}} KEYWRIGHT_FUZZ_FROM={{from}} cargo test --locked --profile sim --lib --test fuzz -- fuzz_ --nocapture

# What CI does
ci:
    .ci/run

bench:
    cargo bench

# What stores elsewhere are asked in an hour; `tests/run` has installed the servers
store-calls credentials="1200":
    KEYWRIGHT_BENCH_CREDENTIALS={{credentials}} cargo bench --bench store_calls

# How fast a new version reaches so many streams over three replicas
streams count="10000":
    KEYWRIGHT_BENCH_STREAMS={{count}} cargo bench --bench streams

//! Entry point: the command line is parsed in `cli`, nothing else happens here.

use std::process::ExitCode;

/// Memory is wiped when it is freed: a value that a library copied doesn't stay behind (I20).
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = zeroizing_alloc::ZeroAlloc(mimalloc::MiMalloc);

fn main() -> ExitCode {
    keywright::cli::main()
}

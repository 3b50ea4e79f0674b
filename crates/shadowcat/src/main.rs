//! The `shadowcat` binary; everything it does is in the library beside it.

use std::process::ExitCode;

/// A call makes and drops some forty things that live as long as it does, in bursts and on any
/// thread; the system's allocator keeps too few of a size at hand for that (`docs/performance.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shadowcat::main()
}

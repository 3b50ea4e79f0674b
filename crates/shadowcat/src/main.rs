//! The `shadowcat` binary; everything it does is in the library beside it.

use std::process::ExitCode;

/// A call makes some forty things that live as long as it does, and with many in flight they come
/// and go in bursts. The system's allocator keeps few of a size at hand for that, and its slow path
/// takes locks.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shadowcat::main()
}

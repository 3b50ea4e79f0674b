//! The `shadowcat` binary; everything it does is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    shadowcat::main()
}

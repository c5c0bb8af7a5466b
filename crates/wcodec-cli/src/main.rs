//! The `wcodec` command; the library beside it is all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(wcodec_cli::main(std::env::args_os()))
}

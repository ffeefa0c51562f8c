//! The binary `dbmount`; everything is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    dbmount::cli::run(&dbmount::source::Sources, std::env::args_os())
}

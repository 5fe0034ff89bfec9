//! The command behind `qemu-tests/run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match qemu_tests::cli::run(&qemu_tests::cli::options()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

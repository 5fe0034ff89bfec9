//! The command behind `qemu-tests/run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also how one of the tools tree is started.
    if let Some(status) = image_builder::tools::enter_if_asked() {
        return status;
    }
    match qemu_tests::cli::run(&qemu_tests::cli::options()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

//! The command behind `qemu-tests/run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also how one of the tools tree is started, and what cleans up after itself.
    let other = image_builder::tools::enter_if_asked().or_else(qemu_tests::janitor::work_if_asked);
    if let Some(status) = other {
        return status;
    }
    match qemu_tests::cli::run(&qemu_tests::cli::options()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(qemu_tests::cli::NOT_RUN)
        }
    }
}

//! The `kubeboot` command. Everything it does is in the library.

fn main() -> std::process::ExitCode {
    kubeboot::commands::main()
}

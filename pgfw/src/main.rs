//! The one binary: parses arguments, runs a command, says what went wrong and what to do about it.

fn main() -> std::process::ExitCode {
    pgfw::cli::main()
}

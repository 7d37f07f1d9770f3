//! Parse, dispatch, exit code; nothing else.

use std::io::Write;
use std::process::ExitCode;

/// What Linux gives a main thread.
const STACK: usize = 8 << 20;

/// Where the main thread's stack begins depends on arguments and environment variables, and is drawn anew
/// for each process; by where it lies to cache lines and pages, kernels differ by up to a fifth (Mytkowicz et
/// al., "Producing wrong data without doing anything obviously wrong!", 2009). The stacks of further threads
/// begin at a page, always.
fn main() -> ExitCode {
    let thread = std::thread::Builder::new().name("main".into()).stack_size(STACK).spawn(run);
    match thread.map(|t| t.join()) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(_) => run(),
    }
}

fn run() -> ExitCode {
    match tritmark::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            let text = tritmark::words::printable(&error.to_string()).into_owned();
            // Who closed standard error does not want to know; the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::from(error.exit_code())
        }
    }
}

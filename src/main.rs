//! Parse, dispatch, exit code.

use std::any::Any;
use std::io::Write;
use std::process::ExitCode;

/// What Linux gives a main thread.
const STACK: usize = 8 << 20;

/// Where the main thread's stack begins depends on arguments and environment variables, and is drawn anew
/// for each process; by where it lies to cache lines and pages, kernels differ by up to a fifth (Mytkowicz et
/// al., "Producing wrong data without doing anything obviously wrong!", 2009). The stacks of further threads
/// begin at a page, always.
fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match refusal(panic.payload()) {
        Some(text) => tell(text),
        None => usual(panic),
    }));
    let thread = std::thread::Builder::new().name("main".into()).stack_size(STACK).spawn(run);
    match thread.map(|t| t.join()) {
        Ok(Ok(code)) => code,
        // The hook has told of it.
        Ok(Err(panic)) => ExitCode::from(if refusal(&*panic).is_some() { 74 } else { 70 }),
        Err(_) => run(),
    }
}

/// The words of a panic that the system is to blame for.
fn refusal(payload: &dyn Any) -> Option<&String> {
    payload.downcast_ref::<String>().filter(|text| text.starts_with(tritmark_kernels::REFUSED))
}

/// Says what went wrong. Who closed standard error does not want to know; the exit code still tells.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "error: {}", tritmark::words::printable(text));
}

fn run() -> ExitCode {
    match tritmark::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            tell(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
